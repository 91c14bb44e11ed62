// Package repo is the repository: sealed, signed, immutable objects in any blob.Storage, from which a store
// is restored with three things only: the storage, a recovery identity and this program (or the tools age,
// zstd and b3sum; docs/format.md decides the format, and this code follows it).
//
// It promises:
//
//  1. An object that can be seen can be followed: bodies are durable before what refers to them.
//  2. Nothing is believed by its place. Every record is signed by an enrolled host over its own name, every
//     chunk is checked against its id, every WAL body against its signed digest. What is unsigned, foreign,
//     revoked, renamed, swapped or damaged is refused, and the error names the object.
//  3. "Not found" is said only of what is proven absent. A storage that fails, a body that is missing under
//     its sidecar, a hole with later WAL behind it are other errors, so that recovery never ends early.
//  4. A writer's credential reads names, sizes and structure, and never content (package-wide: "metadata").
//  5. Memory does not grow with the protected data.
//
// Start with Init (a new repository), Unlock (the recovery side) or ReadCredential (a protected host), then
// Open. Meta lists and writes; a Reader also reads content; a Sink takes WAL; a Lease keeps others out.
package repo
