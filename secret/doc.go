// Package secret resolves references to secrets at the moment of use, and keeps what it resolved out of sight.
//
// A reference says where a secret lies, never what it is:
//
//	env:NAME     a variable of relight's own environment
//	file:PATH    a file that only its owner (and perhaps its group) can read
//	exec:CMD     what a program prints; words split as a shell would, but no shell runs
//	age:PATH     a file sealed with age to an identity of the estate
//
// It promises: a Value prints as ••• through fmt with every verb, log/slog, JSON and text encodings, also deep inside other
// structs; a literal secret in place of a reference is refused without being repeated; a secret file that everybody can
// read is refused; and a Redactor that has seen a value removes it from a byte stream however the stream is cut.
package secret
