package postgres

import (
	"bytes"
	"testing"

	"github.com/toolboxai/relight/repo"
)

// What an incremental backup does with a page that did not change: read, checksum, judge.
func BenchmarkUnchangedPages(b *testing.B) {
	const n = 128
	var body []byte
	for i := range n {
		body = append(body, heapPage(byte(i), uint32(i), 5*testSegment)...)
	}
	buf := make([]byte, 65536)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		s := newPageSource(newRelationReader(b.Context(), bytes.NewReader(body), "base/5/1", relation{}, int64(len(body)),
			pageRules{block: 8192, segment: 131072, checksum: true, sleep: noSleep}, func(d Damage) { b.Fatal(d) }),
			&ancestor{start: 9 * testSegment, first: testSegment}, repo.Entry{Paged: true, Size: int64(len(body))}, func(int64) {})
		for i := range int64(n / 8) {
			if _, fresh, err := s.Chunk(b.Context(), i, buf); len(fresh) > 0 || err != nil {
				b.Fatal(fresh, err)
			}
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	page := heapPage(1, 1, 5*testSegment)
	b.SetBytes(8192)
	for b.Loop() {
		if pageFault(page, 1) != "" {
			b.Fatal("wrong")
		}
	}
}
