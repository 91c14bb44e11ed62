package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
)

func noSleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// makePage makes a page with the checksum of its block.
func makePage(seed byte, block uint32, lsn relight.LSN) []byte {
	p := make([]byte, 8192)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(p)
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[14:], 4096) // pd_upper
	binary.LittleEndian.PutUint16(p[8:], pageChecksum(p, block))
	return p
}

// scripted gives another content at each reading of a page; the last one stays.
type scripted struct {
	pages map[int64][][]byte
	size  int64
}

func (s *scripted) ReadAt(p []byte, at int64) (int, error) {
	n := 0
	for n < len(p) && at+int64(n) < s.size {
		b := (at + int64(n)) / 8192
		versions := s.pages[b]
		copy(p[n:], versions[0])
		if len(versions) > 1 {
			s.pages[b] = versions[1:]
		}
		n += 8192
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func readAll(t *testing.T, f io.ReaderAt, size int64, rel relation, rules pageRules) ([]byte, []Damage) {
	t.Helper()
	var hurt []Damage
	r := newRelationReader(t.Context(), f, "base/1/2", rel, size, rules, func(d Damage) { hurt = append(hurt, d) })
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b, hurt
}

func TestTrap07PagesAreJudged(t *testing.T) {
	t.Parallel()
	const start, end = 0x5000, 0x9000
	good := func(b uint32) []byte { return makePage(1, b, 0x100) }
	torn := func(b uint32, lsn relight.LSN) []byte { p := makePage(2, b, lsn); p[5000] ^= 1; return p }
	dirty := make([]byte, 8192)
	dirty[7000] = 1
	cases := []struct {
		name    string
		reads   [][]byte // successive contents of block 0
		offline bool
		damaged bool
		keeps   []byte
	}{
		{"good", [][]byte{good(0)}, false, false, good(0)},
		{"never used", [][]byte{make([]byte, 8192)}, false, false, make([]byte, 8192)},
		{"neither page nor empty", [][]byte{dirty}, false, true, dirty},
		{"torn, then whole", [][]byte{torn(0, 0x100), good(0)}, false, false, good(0)},
		{"rewritten by replay", [][]byte{torn(0, start)}, false, false, torn(0, start)},
		{"torn, then rewritten by replay", [][]byte{torn(0, 0x100), torn(0, end)}, false, false, torn(0, end)},
		{"beyond the server's end of WAL", [][]byte{torn(0, end+1)}, false, true, torn(0, end+1)},
		{"damaged for good", [][]byte{torn(0, 0x100)}, false, true, torn(0, 0x100)},
		{"offline, newer than anything", [][]byte{torn(0, end)}, true, true, torn(0, end)},
		{"of another block", [][]byte{good(1)}, false, true, good(1)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rules := pageRules{block: 8192, segment: 131072, checksum: true, start: start, sleep: noSleep,
				end: func(context.Context) (relight.LSN, error) { return end, nil }}
			if c.offline {
				rules.end = nil
			}
			f := &scripted{pages: map[int64][][]byte{0: slices.Clone(c.reads)}, size: 8192}
			got, hurt := readAll(t, f, 8192, relation{}, rules)
			if (len(hurt) > 0) != c.damaged {
				t.Errorf("damage %v", hurt)
			}
			if !bytes.Equal(got, c.keeps) {
				t.Error("other bytes are kept")
			}
		})
	}
}

func TestTrap07BlockNumbersAreAbsoluteAcrossSegments(t *testing.T) {
	t.Parallel()
	rules := pageRules{block: 8192, segment: 131072, checksum: true, sleep: noSleep}
	f := &scripted{pages: map[int64][][]byte{0: {makePage(1, 2*131072, 1)}, 1: {makePage(1, 2*131072+1, 1)}}, size: 16384}
	if _, hurt := readAll(t, f, 16384, relation{Segment: 2}, rules); len(hurt) > 0 {
		t.Errorf("blocks of the third segment: %v", hurt)
	}
	if _, hurt := readAll(t, f, 16384, relation{}, rules); len(hurt) != 2 {
		t.Errorf("the same file as first segment: %v", hurt)
	}
}

func TestTrap06FileThatShrinksWhileItIsRead(t *testing.T) {
	t.Parallel()
	rules := pageRules{block: 8192, segment: 131072, checksum: true, sleep: noSleep}
	f := &scripted{pages: map[int64][][]byte{0: {makePage(1, 0, 1)}}, size: 8192}
	got, hurt := readAll(t, f, 100*8192+77, relation{}, rules)
	if len(got) != 8192 || len(hurt) > 0 {
		t.Errorf("%d bytes, damage %v", len(got), hurt)
	}
}

// sampleControl is a control file with a right checksum.
func sampleControl(version uint32) []byte {
	b := make([]byte, controlSize)
	le := binary.LittleEndian
	le.PutUint64(b, 7)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[16:], uint32(stateProduction))
	le.PutUint32(b[216:], 8192)
	le.PutUint32(b[controlUsed:], crc32.Checksum(b[:controlUsed], castagnoli))
	return b
}

func TestTrap02ControlFileIsReadUntilItsChecksumIsRight(t *testing.T) {
	t.Parallel()
	good := sampleControl(1300)
	torn := slices.Clone(good)
	torn[40] ^= 1
	n := 0
	b, err := readSettledControl(t.Context(), func() ([]byte, error) {
		if n++; n < 4 {
			return torn, nil
		}
		return good, nil
	}, noSleep)
	if err != nil || !bytes.Equal(b, good) || n != 4 {
		t.Errorf("after %d readings: %v", n, err)
	}
	if _, err := readSettledControl(t.Context(), func() ([]byte, error) { return torn, nil }, noSleep); !errors.Is(err, errControlCRC) {
		t.Errorf("a control file that stays torn: %v", err)
	}
	if _, err := parseControl(sampleControl(1800)); err == nil || !strings.Contains(err.Error(), "1800") {
		t.Errorf("an unknown format: %v", err)
	}
	if _, err := parseControl(good[:100]); err == nil {
		t.Error("a short control file was read")
	}
}

func TestTrap05Names(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"16384": true, "16384_fsm": true, "16384_vm.3": true, "16384_init": true, "16384.1": true,
		"16384.0": false, "16384.01": false, "16384_x": false, "t3_16384": false, "PG_VERSION": false, "016384": false, "": false, "16384.": false,
	} {
		if _, ok := parseRelation(name); ok != want {
			t.Errorf("parseRelation(%q) = %v", name, ok)
		}
	}
	for name, want := range map[string]bool{"t3_16384": true, "t3_16384_vm.1": true, "t_16384": false, "3_16384": false, "t3_x": false, "table": false} {
		if temporary(name) != want {
			t.Errorf("temporary(%q) = %v", name, !want)
		}
	}
	for dir, want := range map[string]bool{"global": true, "base/5": true, "pg_tblspc/16385/PG_15_202209061/5": true, "base": false, "base/5/6": false, "pg_tblspc/16385": false, "pg_wal": false} {
		if databaseDir(dir) != want {
			t.Errorf("databaseDir(%q) = %v", dir, !want)
		}
	}
	drop := unlogged([]string{"1", "1_init", "2", "2_fsm", "13", "13_init"})
	if !drop["1"] || !drop["13"] || drop["2"] {
		t.Errorf("unlogged: %v", drop)
	}
}

func TestTrap22TimesCarryTheirOffset(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 10, 26, 2, 30, 0, 123456789, time.FixedZone("CEST", 7200))
	if got := stamp(at); got != "2025-10-26 00:30:00.123456+00" {
		t.Errorf("stamp = %q", got)
	}
}

func TestTrap24RecoverySettingsOfTheSourceAreDropped(t *testing.T) {
	t.Parallel()
	kept, dropped := withoutRecovery("# auto\nwork_mem = '4MB'\nrestore_command = 'cp x'\nRecovery_Target_Time='x'\nprimary_conninfo = 'host=a'\narchive_mode = 'on'\n")
	if kept != "# auto\nwork_mem = '4MB'\narchive_mode = 'on'\n" || len(dropped) != 3 {
		t.Errorf("kept %q, dropped %q", kept, dropped)
	}
}

// To pause may promote silently, and to shut down leaves recovery.signal behind: whatever the target, the server is told to promote.
func TestTrap24EveryTargetPromotes(t *testing.T) {
	t.Parallel()
	for _, target := range []relight.RecoveryTarget{
		{Kind: relight.TargetLatest}, {Kind: relight.TargetImmediate}, {Kind: relight.TargetTime, Time: time.Unix(1e9, 0)},
		{Kind: relight.TargetLSN, LSN: 0x3000000}, {Kind: relight.TargetXID, XID: 700}, {Kind: relight.TargetName, Name: "before"},
	} {
		r := restore{plan: plan{Server: target}}
		if set := r.targetSettings(); !slices.Contains(set, [2]string{"recovery_target_action", "promote"}) {
			t.Errorf("%s: %v", target.Kind, set)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(sampleControl(1300))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseControl(b) })
}

// Whatever instructions the processor has, the sums are those of the server's plain loop.
func TestChecksumsDoNotDependOnTheProcessor(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 260 {
		b := make([]byte, n*rowBytes+rng.IntN(rowBytes))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		fast, slow := checksumBases, checksumBases
		mixAll(&fast, b)
		mixEach(&slow, b)
		if fast != slow {
			t.Fatalf("%d rows have other sums", n)
		}
	}
}
