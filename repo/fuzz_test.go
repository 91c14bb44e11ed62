package repo

import (
	"bytes"
	"context"
	"encoding/json"
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

func FuzzDecodeMap(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1}, 3*idSize), 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, in []byte, roots int) {
		load := func(context.Context, ChunkID) ([]byte, error) { return in, nil }
		e := Entry{Maps: make([]ChunkID, max(0, min(roots, 2)))}
		c := newIDCursor(e, load)
		n := 0
		for ; n < 4*maxRootIDs*leafIDs; n++ {
			_, ok, err := c.next(t.Context())
			if err != nil {
				if len(in)%idSize == 0 && len(in) > 0 && len(in) <= leafIDs*idSize {
					t.Fatal(err)
				}
				return
			}
			if !ok {
				break
			}
			if n > 5000 {
				return
			}
		}
		if want := len(e.Maps) * (len(in) / idSize) * (len(in) / idSize); n != want {
			t.Fatalf("%d ids instead of %d", n, want)
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
