package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
)

func FuzzDecodeIndex(f *testing.F) {
	packs := []packInfo{{id: packID{1}, kind: dataPack, size: 100}, {id: packID{2}, kind: metaPack, size: 200}}
	recs := []record{{id: ChunkID{1}, frame: 5, plain: 9}, {id: ChunkID{2}, pack: 1, off: 5, frame: 7, plain: maxChunk}}
	var b bytes.Buffer
	if err := encodeIndex(&b, packs, recs); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		var packs []packInfo
		var recs []record
		err := decodeIndex(bytes.NewReader(in), func(p []packInfo) error { packs = p; return nil }, func(r record) error {
			if int(r.pack) >= len(packs) || r.plain > maxChunk || int64(r.off)+int64(r.frame) > packs[r.pack].size {
				t.Fatalf("impossible record %+v", r)
			}
			recs = append(recs, r)
			return nil
		})
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := encodeIndex(&again, packs, recs); err != nil || !bytes.Equal(again.Bytes(), in) {
			t.Fatalf("an index that is accepted has one form only (%v)", err)
		}
	})
}

func FuzzDecodeRoot(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1}, 3*idSize), 1)
	f.Add([]byte{}, 0)
	lone, err := encodeLeaf(nil, make([]byte, idSize), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, roots int) {
		e := Entry{Maps: make([]ChunkID, max(0, min(roots, 2)))}
		read := 0
		c := newSlotCursor(e, func(context.Context, ChunkID) ([]byte, error) {
			if read++; (read-1)%(1+len(in)/idSize) == 0 {
				return in, nil
			}
			return lone, nil
		})
		n := 0
		for ; ; n++ {
			_, ok, err := c.next(t.Context())
			if err != nil {
				if len(in)%idSize == 0 && len(in) > 0 && len(in) <= maxRootIDs*idSize {
					t.Fatal(err)
				}
				return
			}
			if !ok {
				break
			}
		}
		if want := len(e.Maps) * (len(in) / idSize); n != want {
			t.Fatalf("%d slots instead of %d", n, want)
		}
	})
}

func FuzzDecodeLeaf(f *testing.F) {
	ids := bytes.Repeat([]byte{1}, 3*idSize)
	a, b := ChunkID{2}, ChunkID{3}
	for _, mosaics := range [][]tiled{nil, {{0, []tile{{&a, 0, 8192}}}, {2, []tile{{&b, 512, 512}, {&a, 65024, 512}, {&b, 0, 1024}}}}} {
		leaf, err := encodeLeaf(nil, ids, mosaics)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(leaf)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := decodeLeaf(in)
		if err != nil {
			if !errors.Is(err, errMap) {
				t.Fatal(err)
			}
			return
		}
		// A table may list a chunk twice, which a writer never does: rows stand for the ids then.
		rows := make([]ChunkID, len(l.sources)/idSize)
		for i := range rows {
			rows[i] = ChunkID{byte(i), byte(i >> 8)}
		}
		var mosaics []tiled
		for _, m := range l.mosaics {
			if m.slot >= l.slots() || m.size() > maxPage || m.size() == 0 {
				t.Fatalf("impossible mosaic %+v", m)
			}
			next := tiled{slot: m.slot}
			for _, p := range m.pieces {
				if p.n == 0 || p.off+p.n > maxPage {
					t.Fatalf("impossible piece %+v", p)
				}
				next.tiles = append(next.tiles, tile{&rows[p.source], p.off, p.n})
			}
			mosaics = append(mosaics, next)
		}
		again, err := encodeLeaf(nil, l.ids, mosaics)
		for i := range rows {
			copy(again[leafHeader+len(l.ids)+i*idSize:], l.sources[i*idSize:(i+1)*idSize])
		}
		if err != nil || !bytes.Equal(again, in) {
			t.Fatalf("a leaf that is accepted has one form only (%v)", err)
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	man := Manifest{Snapshot: relight.Snapshot{ID: "s", Store: "main", Host: "db1"}, Format: 1, Tree: []ChunkID{{1}}}
	b, err := json.Marshal(man)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"id":"s","store":"main","host":"db1","tree":["00"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := decodeManifest(Signed{Kind: "manifest", Name: "snap/main/s", Signer: "db1", Payload: in})
		if err != nil {
			return
		}
		if got.Store != "main" || got.ID != "s" || got.Host != "db1" || got.State != relight.Complete || got.Format != 1 {
			t.Fatalf("accepted %+v", got)
		}
	})
}

func FuzzDecodeEntries(f *testing.F) {
	for _, e := range []Entry{{Path: "a"}, {Path: "b", Mode: fs.ModeDir}, {Path: "c", Mode: fs.ModeSymlink, Link: "../x"}, {Path: "d", Size: 3, Chunks: []ChunkID{{1}}}} {
		b, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b) + "\n")
	}
	f.Add(`{"path":"../etc/passwd"}`)
	f.Fuzz(func(t *testing.T, in string) {
		last := ""
		_ = eachLine(strings.NewReader(in), func(e Entry, _ []byte) error { // refusing is fine; what is accepted must be safe
			if !filepath.IsLocal(e.Path) || e.Size < 0 || last != "" && e.Path <= last {
				t.Fatalf("accepted %+v after %q", e, last)
			}
			last = e.Path
			return nil
		})
	})
}
