package repo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// Ten thousand files, each with content of its own, must not become ten thousand objects.
func TestTrap08ManyFilesShareFewPacks(t *testing.T) {
	t.Parallel()
	much(t)
	const n = 10_000
	s, content := newShop(t), map[string][]byte{}
	for i := range n {
		content[fmt.Sprintf("base/%05d/%d", i%10, 16384+i)] = bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), 20+i%400)
	}
	must(s.take(t.Context(), s.writer(s.s), "main", content, SnapshotOptions{Kind: "full"}))(t)
	if packs, all := len(objectNames(t, s.s, "pack/")), len(objectNames(t, s.s, "")); packs == 0 || packs > 8 || all > 40 {
		t.Errorf("%d files lie in %d packs, among %d objects", n, packs, all)
	}
	s.restoreAll("main")
}
