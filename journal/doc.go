// Package journal is the one log: append-only, hash-chained, signed, shared by all relight processes of a host.
//
// It promises:
//
//   - An event whose Append has returned survives kill -9 and a power cut (SQLite in WAL mode, synchronous FULL).
//   - Events of all processes form one sequence without holes. A writer that states what it believes to be a run's last
//     event, or under which lease it acts, is refused when that is no longer so.
//   - Whoever changes, removes, reorders or cuts off events before the last anchored head, without the host's key,
//     is found by Verify.
//   - Known secrets never reach the file.
//
// docs/journal.md specifies the bytes. Callers may use a Journal from several goroutines; several processes may have the
// same file open.
package journal
