package postgres

import "golang.org/x/sys/cpu"

// mixRows is mix for n rows that follow one another. It needs AVX2.
//
//go:noescape
func mixRows(sums *[checksumLanes]uint32, rows *byte, n int)

// mixAll takes all rows of b into the sums. A page is 63 of them, and the processors of the last ten years do eight lanes at once.
func mixAll(sums *[checksumLanes]uint32, b []byte) {
	if n := len(b) / rowBytes; cpu.X86.HasAVX2 && n > 0 {
		mixRows(sums, &b[0], n)
		return
	}
	mixEach(sums, b)
}
