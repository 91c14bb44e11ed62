// Package zframe turns a piece of at most 64 KiB into one zstd frame (RFC 8878), fast.
//
// It exists for one caller: a full backup compresses every 64 KiB chunk of a database by itself, and most of its time went into a general
// encoder. This one knows that a piece is short: its table of former positions stays in the processor's nearest cache, and every position fits
// into two bytes. docs/decisions/0012 says why we own it, and what was measured.
//
// It promises: the frame carries the content's size, has neither checksum nor dictionary, and any zstd decoder opens it; it is never longer
// than the piece by more than Overhead; the same bytes give the same frame, whatever was encoded before. It decodes nothing.
//
// The inner loops are hidden from the race detector (go:norace), which would watch every byte; an Encoder that two goroutines use is still noticed by it.
package zframe
