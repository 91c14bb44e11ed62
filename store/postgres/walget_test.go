package postgres

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

const (
	sampleSystem = relight.SystemID(7711372586987857091)
	sampleStart  = relight.LSN(0x800000) // two complete segments of 1 MiB
	sampleTail   = relight.LSN(0x1000000)
)

func recordedWAL(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("walfile", "testdata", name+".zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hold puts WAL into a sink as complete segments.
func hold(m *memSink, tl relight.TimelineID, start relight.LSN, b []byte) {
	for off := 0; off < len(b); off += 1 << 20 {
		at := start + relight.LSN(off)
		name := walfile.SegmentName(tl, at, 1<<20)
		body := b[off : off+1<<20]
		m.whole[name] = memWAL{repo.Sidecar{System: sampleSystem, Timeline: tl, Name: name, Start: at, End: at + 1<<20, SegmentSize: 1 << 20, Size: 1 << 20,
			Digest: fmt.Sprintf("%x", blake3.Sum256(body))}, body}
	}
}

func holdLive(m *memSink, tl relight.TimelineID, from relight.LSN, b []byte) {
	name := walfile.SegmentName(tl, from, 1<<20)
	m.live[name] = append(m.live[name], memWAL{repo.Sidecar{System: sampleSystem, Timeline: tl, Name: name, Start: from, End: from + relight.LSN(len(b)),
		SegmentSize: 1 << 20, Size: int64(len(b))}, b})
}

type walGetStand struct {
	t      *testing.T
	sink   *memSink
	server *WALServer
	socket string
	dir    string

	mu   sync.Mutex
	fail func(name string) error
}

// failing sets what the repository answers from now on; nil: the truth.
func (g *walGetStand) failing(f func(name string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = f
}

func newWALGetStand(t *testing.T, m *memSink, overlays ...string) *walGetStand {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rlwg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &walGetStand{t: t, sink: m, socket: filepath.Join(dir, "s"), dir: dir}
	r := memRepository{sink: m, key: repo.WALKey{Store: "main", System: sampleSystem}, fail: func(name string) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.fail != nil {
			return g.fail(name)
		}
		return nil
	}}
	g.server, err = NewWALServer(t.Context(), WALServerOptions{Repository: r, Store: "main", System: sampleSystem, Overlays: overlays, Socket: g.socket,
		CacheDir: filepath.Join(dir, "cache"), Log: slog.New(slog.DiscardHandler), Wait: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "cache")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the cache is left behind: %v", err)
		}
		goleak.VerifyNone(t, goleak.IgnoreAnyFunction("testing.(*T).Run"), goleak.IgnoreAnyFunction("testing.(*T).Parallel"))
	})
	return g
}

// get asks for a file and gives exit code and bytes.
func (g *walGetStand) get(name string) (int, []byte, error) {
	g.t.Helper()
	dest := filepath.Join(g.dir, "RECOVERYXLOG")
	_ = os.Remove(dest)
	exit, err := WALGet(g.t.Context(), g.socket, name, dest)
	b, rerr := os.ReadFile(dest)
	if exit == WALGetDone && rerr != nil {
		g.t.Fatal(rerr)
	}
	if exit != WALGetDone && rerr == nil {
		g.t.Errorf("exit %d, and yet there is a file", exit)
	}
	left, _ := filepath.Glob(filepath.Join(g.dir, ".relight-wal-*"))
	if len(left) > 0 {
		g.t.Errorf("temporary files are left: %v", left)
	}
	return exit, b, err
}

func (g *walGetStand) expect(name string, exit int, want []byte) {
	g.t.Helper()
	got, b, err := g.get(name)
	if got != exit || want != nil && !bytes.Equal(b, want) {
		g.t.Errorf("%s: exit %d with %d bytes (%v), want exit %d with %d bytes", name, got, len(b), err, exit, len(want))
	}
}

func TestTrap20ExitOneIsProvenAbsenceOnly(t *testing.T) {
	wal := recordedWAL(t, "v15-switch-and-commits")
	m := newMemSink("a")
	hold(m, 1, sampleStart, wal)
	hold(m, 1, 0xB00000, make([]byte, 1<<20)) // there is WAL behind the missing segment A
	g := newWALGetStand(t, m)
	g.expect("000000010000000000000008", WALGetDone, wal[:1<<20])
	g.expect("000000010000000000000009", WALGetDone, wal[1<<20:])
	g.expect("00000001000000000000000A", WALGetFailed, nil) // a hole is not an end
	g.expect("000000010000000000000007", WALGetFailed, nil) // it was, once
	g.expect("00000001000000000000000C", WALGetAbsent, nil)
	g.expect("00000002.history", WALGetAbsent, nil)
	g.expect("000000020000000000000009", WALGetAbsent, nil)
	g.expect("00000001000000000000000C.partial", WALGetAbsent, nil)
	g.failing(func(string) error { return errors.New("503 slow down") })
	g.expect("00000001000000000000000C", WALGetFailed, nil) // absence cannot be proven now
	g.expect("00000002.history", WALGetFailed, nil)
	if err := g.server.Stats().Failed; err == nil || !strings.Contains(err.Error(), "503 slow down") {
		t.Errorf("stats name the failure %v", err)
	}
}

func TestTrap20EveryBrokenAnswerAborts(t *testing.T) {
	dir := t.TempDir()
	good := fmt.Sprintf("ok 4 %x\n", blake3.Sum256([]byte("good")))
	answers := map[string]string{
		"closed at once":  "",
		"half a line":     "ok 4",
		"unknown word":    "maybe\n",
		"bad size":        "ok x y\n",
		"too few bytes":   good + "goo",
		"too many bytes":  good + "goodness",
		"other bytes":     good + "evil",
		"an error":        "error bucket is away\n",
		"absent, mangled": "absen\n",
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(dir, "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 100))
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}()
			dest := filepath.Join(t.TempDir(), "x")
			if exit, err := WALGet(t.Context(), socket, "000000010000000000000001", dest); exit < 126 || err == nil {
				t.Errorf("exit %d, %v", exit, err)
			}
			if left, _ := os.ReadDir(filepath.Dir(dest)); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	if exit, _ := WALGet(t.Context(), filepath.Join(dir, "nobody"), "000000010000000000000001", filepath.Join(dir, "x")); exit < 126 {
		t.Errorf("nobody listens: exit %d", exit)
	}
	if exit, _ := WALGet(t.Context(), filepath.Join(dir, "nobody"), "../../etc/passwd", filepath.Join(dir, "x")); exit < 126 {
		t.Errorf("a path: exit %d", exit)
	}
}

func TestTrap20AnnouncedGapIsNoEnd(t *testing.T) {
	m := newMemSink("a")
	hold(m, 1, sampleStart, recordedWAL(t, "v15-switch-and-commits"))
	m.gaps = []relight.Gap{{Timeline: 1, From: 0xA00000, To: 0xC00000, Why: "the slot was lost"}}
	g := newWALGetStand(t, m)
	exit, _, err := g.get("00000001000000000000000A")
	if exit != WALGetFailed || !strings.Contains(err.Error(), "the slot was lost") {
		t.Errorf("exit %d, %v", exit, err)
	}
}

func TestTrap20APassingFaultIsTriedAgain(t *testing.T) {
	wal := recordedWAL(t, "v15-switch-and-commits")
	m := newMemSink("a")
	hold(m, 1, sampleStart, wal)
	g := newWALGetStand(t, m)
	left := 2
	g.failing(func(name string) error {
		if name == "000000010000000000000009" && left > 0 {
			left--
			return errors.New("connection reset")
		}
		return nil
	})
	g.expect("000000010000000000000009", WALGetDone, wal[1<<20:])
}

func TestTrap16PartialSegmentServed(t *testing.T) {
	tail := recordedWAL(t, "v15-end-of-log")
	end := 0x5C620 // where the log ends; what follows are zeros
	m := newMemSink("a")
	holdLive(m, 1, sampleTail, tail[:1000])
	holdLive(m, 1, sampleTail+1000, tail[1000:end])
	g := newWALGetStand(t, m)
	want := append(bytes.Clone(tail[:end]), make([]byte, 1<<20-end)...)
	g.expect("000000010000000000000010", WALGetDone, want)
	g.expect("000000010000000000000011", WALGetAbsent, nil)
}

func TestTrap16ALiveRangeMissingInTheMiddleIsNoEnd(t *testing.T) {
	tail := recordedWAL(t, "v15-end-of-log")
	m := newMemSink("a")
	holdLive(m, 1, sampleTail+1000, tail[1000:2000]) // its beginning is missing
	g := newWALGetStand(t, m)
	g.expect("000000010000000000000010", WALGetFailed, nil)
}

func TestOverlayWinsWhereItReachesFurther(t *testing.T) {
	tail := recordedWAL(t, "v15-end-of-log")
	wal := recordedWAL(t, "v15-switch-and-commits")
	overlay := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(overlay, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("000000010000000000000010", tail)                         // reaches beyond the live range
	write("000000010000000000000011", wal[:1<<20])                  // recycled: another segment's bytes
	write("000000010000000000000009", make([]byte, 1<<20))          // zeros
	write("000000010000000000000012", append([]byte("junk"), 0, 0)) // junk
	write("00000002.history", []byte("1\t0/105C620\tno reason\n"))  // only the server has it
	write("000000010000000000000008", wal[:1<<20])                  // as much as the repository
	m := newMemSink("a")
	hold(m, 1, sampleStart, wal)
	holdLive(m, 1, sampleTail, tail[:1000])
	g := newWALGetStand(t, m, overlay)
	g.expect("000000010000000000000009", WALGetDone, wal[1<<20:])
	end := 0x5C61A
	g.expect("000000010000000000000010", WALGetDone, append(bytes.Clone(tail[:end]), make([]byte, 1<<20-end)...))
	g.expect("000000010000000000000011", WALGetAbsent, nil)
	g.expect("00000002.history", WALGetDone, []byte("1\t0/105C620\tno reason\n"))
	g.failing(func(name string) error {
		if name == "000000010000000000000008" {
			return errors.New("bucket is away")
		}
		return nil
	})
	g.expect("000000010000000000000008", WALGetDone, wal[:1<<20])
}

func TestSegmentsBeforeATimelineBeganAreAbsentOnIt(t *testing.T) {
	wal := recordedWAL(t, "v15-switch-and-commits")
	m := newMemSink("a")
	hold(m, 1, sampleStart, wal)
	m.hist[2] = []byte("1\t0/954321\tno reason\n")
	hold(m, 2, 0x900000, wal[1<<20:])
	g := newWALGetStand(t, m)
	g.expect("000000020000000000000008", WALGetAbsent, nil)
	g.expect("000000020000000000000009", WALGetDone, wal[1<<20:])
	g.expect("00000002.history", WALGetDone, []byte("1\t0/954321\tno reason\n"))
	delete(m.hist, 2)
	g2 := newWALGetStand(t, m)
	g2.expect("00000002.history", WALGetFailed, nil) // its WAL is there: the history was
}

func TestSegmentsAreFetchedAhead(t *testing.T) {
	wal := recordedWAL(t, "v15-switch-and-commits")
	m := newMemSink("a")
	for i := range 10 {
		hold(m, 1, sampleStart+relight.LSN(i)<<21, wal)
	}
	g := newWALGetStand(t, m)
	g.expect("000000010000000000000008", WALGetDone, nil)
	for _, ahead := range []string{"000000010000000000000009", "00000001000000000000000F"} {
		eventuallyUnit(t, func() bool {
			info, err := os.Stat(filepath.Join(g.dir, "cache", ahead))
			return err == nil && info.Size() == 1<<20
		})
	}
	g.failing(func(string) error { return errors.New("bucket is away") })
	g.expect("000000010000000000000009", WALGetDone, nil)
	for i := range 8 {
		g.failing(nil)
		g.expect(walfile.SegmentName(1, 0xA00000+relight.LSN(i)<<20, 1<<20), WALGetDone, nil)
	}
	if left, _ := os.ReadDir(filepath.Join(g.dir, "cache")); len(left) > 20 {
		t.Errorf("%d files in the cache", len(left))
	}
}

func eventuallyUnit(t testing.TB, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}

// Where something stands between that passes bytes and no open files, the bytes are asked for.
func TestWALGetTakesBytesWhereNoFileComesThrough(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "rlwg")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, dest := filepath.Join(dir, "s"), filepath.Join(dir, "RECOVERYXLOG")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	body := bytes.Repeat([]byte("wal "), 1<<18)
	var asked []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			asked = append(asked, line)
			if strings.HasPrefix(line, "give") {
				fmt.Fprintf(conn, "file %d\n", len(body))
			} else {
				fmt.Fprintf(conn, "ok %d %x\n%s", len(body), blake3.Sum256(body), body)
			}
			conn.Close()
		}
	}()
	exit, err := WALGet(t.Context(), socket, "000000010000000000000008", dest)
	if got, rerr := os.ReadFile(dest); exit != WALGetDone || rerr != nil || !bytes.Equal(got, body) {
		t.Errorf("exit %d, %v, %d bytes, %v", exit, err, len(got), rerr)
	}
	l.Close()
	<-done
	if want := []string{"give 000000010000000000000008\n", "get 000000010000000000000008\n"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
}

// A file that is shorter than it was said to be is a failure, never a segment.
func TestWALGetRefusesAShortFile(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "rlwg")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, path, dest := filepath.Join(dir, "s"), filepath.Join(dir, "short"), filepath.Join(dir, "RECOVERYXLOG")
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = bufio.NewReader(conn).ReadString('\n')
		if f, err := os.Open(path); err == nil {
			_, _, _ = conn.WriteMsgUnix([]byte("file 8\n"), syscall.UnixRights(int(f.Fd())), nil)
			_ = f.Close()
		}
	}()
	if exit, err := WALGet(t.Context(), socket, "000000010000000000000008", dest); exit != WALGetFailed || err == nil {
		t.Errorf("exit %d, %v", exit, err)
	}
	<-done
	if left, _ := filepath.Glob(filepath.Join(dir, ".relight-wal-*")); len(left) > 0 || exists(dest) {
		t.Errorf("left: %v", left)
	}
}
