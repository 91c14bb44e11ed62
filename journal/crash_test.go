package journal_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
)

// writer is a process that appends and tells the numbers that were acknowledged to it.
type writer struct {
	cmd   *exec.Cmd
	acked []int64
	begun chan struct{} // closed with the first of them, or when there will be none
	err   strings.Builder
	wait  sync.WaitGroup
}

func startWriter(t *testing.T, path, name string, count int) *writer {
	t.Helper()
	w := &writer{cmd: exec.CommandContext(t.Context(), os.Args[0]), begun: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), "JOURNAL_TEST_WRITER="+name, "JOURNAL_TEST_PATH="+path, "JOURNAL_TEST_COUNT="+strconv.Itoa(count))
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = &w.err
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.wait.Go(func() {
		begin := sync.OnceFunc(func() { close(w.begun) })
		defer begin()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				w.acked = append(w.acked, n)
				begin()
			}
		}
	})
	return w
}

func (w *writer) end(kill bool) error {
	if kill {
		_ = w.cmd.Process.Kill()
	}
	w.wait.Wait()
	return w.cmd.Wait()
}

func TestProcessesShareOneChain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db") // the writers also race to create it
	var ws []*writer
	for i := range 4 {
		ws = append(ws, startWriter(t, path, fmt.Sprint("w", i), 40))
	}
	for _, w := range ws {
		if err := w.end(false); err != nil || len(w.acked) != 40 {
			t.Fatal(err, len(w.acked), w.err.String())
		}
	}
	j := open(t, path)
	if r := verified(t, j, trust()); !r.OK() || r.Events != 4*40*2 {
		t.Fatalf("%d events, %+v", r.Events, r.Findings)
	}
}

func TestKilledWritersLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	seed := uint64(os.Getpid())
	if s := os.Getenv("RELIGHT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("RELIGHT_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "journal.db")
	var anchors []journal.Anchor
	var acked int64
	hits := 0
	for round := range 12 {
		a, b := startWriter(t, path, "a", 1<<30), startWriter(t, path, "b", 1<<30)
		if round%2 == 1 { // in the others it may die as it starts
			<-a.begun
		}
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		_ = a.end(true)
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
		_ = b.end(true)
		if a.err.Len()+b.err.Len() > 0 {
			t.Fatal(round, a.err.String(), b.err.String())
		}
		for _, n := range append(a.acked, b.acked...) {
			acked = max(acked, n)
			hits++
		}
		anchors = append(anchors, checkAfterCrash(t, path, acked, anchors))
	}
	if hits < 6 {
		t.Fatalf("only %d appends were acknowledged: the test hits nothing", hits)
	}
}

func checkAfterCrash(t *testing.T, path string, acked int64, anchors []journal.Anchor) journal.Anchor {
	t.Helper()
	j, err := journal.Open(t.Context(), path, options("check"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	r := verified(t, j, trust(anchors...))
	if !r.OK() || r.Head.Seq < acked {
		t.Fatalf("acknowledged %d, head %d, %+v", acked, r.Head.Seq, r.Findings)
	}
	kinds := map[string]int{} // a batch is all or nothing
	if err := j.Read(t.Context(), journal.Filter{}, func(e relight.Event) error { kinds[e.Kind]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if kinds["step.started"] != kinds["step.completed"] {
		t.Fatal("half a batch", kinds)
	}
	a, err := j.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			j, _ := fresh(b)
			batch := make([]relight.Event, n)
			for i := range batch {
				batch[i] = event("r-1", "step.completed", strings.Repeat("x", 300))
			}
			for b.Loop() {
				if _, err := j.AppendBatch(b.Context(), batch, journal.Expect{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	j, _ := fresh(b)
	batch := make([]relight.Event, 10_000)
	for i := range batch {
		batch[i] = event("r-1", "step.completed", strings.Repeat("x", 300))
	}
	if _, err := j.AppendBatch(b.Context(), batch, journal.Expect{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r := verified(b, j, trust()); !r.OK() {
			b.Fatal(r.Findings)
		}
	}
}
