// Package host runs programs and keeps files on this host.
//
// It promises:
//
//   - A child never outlives relight by accident: a process started by Local is killed by the kernel when relight dies,
//     however relight dies. Only StartDetached leaves a process behind, and it says where.
//   - A program has no effect before its handle is recorded: with a Started hook the process exists, stopped at a gate,
//     until the hook has returned; it keeps its pid when the gate opens.
//   - A handle names one process for ever (pid, start time, boot id), so that a successor ends or awaits what was left
//     running and never a stranger that got the same pid.
//   - What WriteFileDurable, Move and Fence have acknowledged survives a power cut.
//   - A child sees only the environment that it was given, on top of a minimal one. Secrets belong into a file or a pipe.
//
// Everything here is Linux. A transport to other hosts implements Runner; none exists yet.
package host
