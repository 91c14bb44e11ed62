package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func local(t *testing.T) *host.Local {
	t.Helper()
	l := host.NewLocal(host.Options{})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOutputAndExitStatus(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	out, err := host.Output(ctx, l, host.Command{Argv: []string{"sh", "-c", "cat; echo $X >&2; exit 7"},
		Stdin: strings.NewReader("in"), Env: []string{"X=one", "X=two"}})
	var exit *host.ExitError
	if !errors.As(err, &exit) || exit.Code != 7 || !strings.HasSuffix(err.Error(), "two") || string(out) != "in" {
		t.Fatalf("out %q, err %v", out, err)
	}
}

func TestEnvironmentIsMinimal(t *testing.T) {
	t.Parallel()
	out, err := host.Output(within(t), local(t), host.Command{Argv: []string{"env"}, Env: []string{"A=1"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "PATH HOME LANG A RELIGHT_HANDLE" {
		t.Fatalf("the child sees %s", got)
	}
}

func TestGateHoldsTheEffectUntilTheHandleIsRecorded(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	mark := filepath.Join(t.TempDir(), "effect")
	var seen relight.Handle
	p, err := l.Start(ctx, host.Command{Argv: []string{"sh", "-c", `echo "$$ $1" > "$0"`, mark, "a b'c"}, What: "marker",
		Started: func(_ context.Context, h relight.Handle) error {
			seen = h
			time.Sleep(100 * time.Millisecond) // room for an effect that does not wait
			if _, err := os.Stat(mark); err == nil {
				t.Error("the effect came before the handle was recorded")
			}
			if alive, err := host.Alive(h); err != nil || !alive {
				t.Errorf("at the gate: alive=%v, %v", alive, err)
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	if want := itoa(seen.PID) + " a b'c\n"; string(b) != want {
		t.Fatalf("got %q, want %q: the pid must stay and arguments arrive unharmed", b, want)
	}
	if alive, _ := host.Alive(seen); alive || seen != p.Handle() {
		t.Fatalf("after the end alive=%v", alive)
	}
}

func TestRefusedHandleMeansNoEffect(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "effect")
	no := errors.New("journal is full")
	var h relight.Handle
	_, err := local(t).Start(within(t), host.Command{Argv: []string{"touch", mark},
		Started: func(_ context.Context, got relight.Handle) error { h = got; return no }})
	if !errors.Is(err, no) {
		t.Fatalf("err = %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Fatal("the program ran though its handle was not recorded")
	}
	if alive, err := host.Alive(h); err != nil || alive {
		t.Fatalf("alive=%v, %v", alive, err)
	}
}

func TestStopKillsTheStubbornAndTheirDescendants(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	var out syncBuffer
	script := `trap '' TERM; setsid sh -c 'trap "" TERM; echo inner; while :; do sleep 1; done' & echo outer; while :; do sleep 1; done`
	p, err := l.Start(ctx, host.Command{Argv: []string{"sh", "-c", script}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "inner") || !strings.Contains(out.String(), "outer") {
		time.Sleep(5 * time.Millisecond)
	}
	if err := p.Stop(ctx, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if alive, err := host.Alive(p.Handle()); err != nil || alive {
		t.Fatalf("alive=%v, %v", alive, err)
	}
	var exit *host.ExitError
	if err := p.Wait(ctx); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Fatalf("wait = %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := local(t)
	ctx, cancel := context.WithCancel(context.Background())
	var h relight.Handle
	err := host.Run(ctx, l, host.Command{Argv: []string{"sleep", "300"}, Started: func(_ context.Context, got relight.Handle) error {
		h = got
		time.AfterFunc(20*time.Millisecond, cancel)
		return nil
	}}, time.Second)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if alive, err := host.Alive(h); err != nil || alive {
		t.Fatalf("alive=%v, %v", alive, err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	l := host.NewLocal(host.Options{})
	p, err := l.Start(within(t), host.Command{Argv: []string{"sleep", "300"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if alive, _ := host.Alive(p.Handle()); alive {
		t.Fatal("a child outlived its Local")
	}
	if _, err := l.Start(within(t), host.Command{Argv: []string{"true"}}); err == nil {
		t.Fatal("a closed Local started a program")
	}
	if err := l.Close(); err != nil {
		t.Fatal("second close:", err)
	}
}

func TestKilledParentTakesItsChildrenAlong(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), within(t)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_ROLE=parent", "HOST_TEST_DIR="+dir)
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "\n") && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	for !exists(filepath.Join(dir, "grandchild")) && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	var hs []relight.Handle
	if err := json.Unmarshal([]byte(out.String()), &hs); err != nil {
		t.Fatal(err)
	}
	child, service := hs[0], hs[1]
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	alone := child
	alone.Label = "" // only the child itself, which the kernel kills
	if err := host.Await(ctx, alone); err != nil {
		t.Fatal(err)
	}
	if alive, err := host.Alive(child); err != nil || !alive {
		t.Fatalf("the grandchild that left the group is not found: %v, %v", alive, err)
	}
	if err := host.End(ctx, child, time.Second); err != nil {
		t.Fatal(err)
	}
	if alive, err := host.Alive(service); err != nil || !alive {
		t.Fatalf("the detached service: alive=%v, %v", alive, err)
	}
	read, err := host.ReadHandle(filepath.Join(dir, "handle"))
	if err != nil || read != service {
		t.Fatalf("read %+v, %v; want %+v", read, err, service)
	}
	if err := host.End(ctx, read, time.Second); err != nil {
		t.Fatal(err)
	}
	if alive, _ := host.Alive(service); alive {
		t.Fatal("the service is still alive")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestStrangersAreNotTouched(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	p, err := l.Start(ctx, host.Command{Argv: []string{"sleep", "300"}})
	if err != nil {
		t.Fatal(err)
	}
	other := p.Handle()
	other.Label = ""
	for name, change := range map[string]func(*relight.Handle){
		"same pid, started at another time": func(h *relight.Handle) { h.Started++ },
		"same pid, another boot":            func(h *relight.Handle) { h.Boot = "x" },
	} {
		h := other
		change(&h)
		if alive, err := host.Alive(h); err != nil || alive {
			t.Errorf("%s: alive=%v, %v", name, alive, err)
		}
		if err := host.End(ctx, h, 0); err != nil {
			t.Errorf("%s: end: %v", name, err)
		}
	}
	if alive, _ := host.Alive(p.Handle()); !alive {
		t.Fatal("a stranger was killed")
	}
	if _, err := host.Alive(relight.Handle{Kind: "container", Label: "x"}); err == nil {
		t.Fatal("a container was taken for a process")
	}
}

func TestDropsToTheOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may become another user")
	}
	u, err := host.LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	for _, started := range []func(context.Context, relight.Handle) error{nil, func(context.Context, relight.Handle) error { return nil }} {
		out, err := host.Output(within(t), local(t), host.Command{Argv: []string{"id", "-un"}, Dir: "/", User: &u, Started: started})
		if err != nil || string(bytes.TrimSpace(out)) != "nobody" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	groups, err := host.Output(within(t), local(t), host.Command{Argv: []string{"id", "-G"}, Dir: "/", User: &u})
	if err != nil || strings.Contains(" "+string(groups)+" ", " 0 ") {
		t.Fatalf("root's groups were kept: %q, %v", groups, err)
	}
}

func TestStartRefusals(t *testing.T) {
	t.Parallel()
	l, ctx, dir := local(t), within(t), t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]host.Command{
		"no program is named":         {},
		"is not in PATH":              {Argv: []string{"no-such-program"}},
		"is not an executable file":   {Argv: []string{plain}},
		"is not a directory":          {Argv: []string{"true"}, Dir: plain},
		"no such file":                {Argv: []string{"/no/such"}},
		"contains a zero byte":        {Argv: []string{"true", "a\x00b"}},
		"working directory: stat /no": {Argv: []string{"true"}, Dir: "/no"},
	} {
		if _, err := l.Start(ctx, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := l.Start(ctx, host.Command{Argv: []string{"no-such-program"}}); relight.HintOf(err) == "" {
		t.Error("no hint")
	}
}

// A descendant may lose one mark and still be found: env -i takes the environment, closing descriptor 3 takes the file.
func TestEitherMarkFindsADescendant(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"descriptor": "setsid env -i ", "environment": "exec 3<&-; setsid "} {
		l, ctx, up := local(t), within(t), filepath.Join(t.TempDir(), "up")
		script += `sh -c 'echo up >"$0"; exec sleep 300' "$0" & while ! [ -s "$0" ]; do :; done`
		p, err := l.Start(ctx, host.Command{Argv: []string{"sh", "-c", script, up}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if alive, err := host.Alive(p.Handle()); err != nil || !alive {
			t.Errorf("%s: alive=%v, %v", name, alive, err)
		}
		if err := host.End(ctx, p.Handle(), time.Second); err != nil {
			t.Error(name, err)
		}
		if alive, _ := host.Alive(p.Handle()); alive {
			t.Error(name, "is still alive")
		}
	}
}

func TestSignalReachesOnlyTheProcessItself(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	var out syncBuffer
	p, err := l.Start(ctx, host.Command{Argv: []string{"sh", "-c", `setsid sleep 300 & trap 'echo got' HUP; echo up; wait; wait`}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "up") {
		time.Sleep(5 * time.Millisecond)
	}
	if err := host.Signal(p.Handle(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "got") && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	if err := p.Stop(ctx, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := host.Signal(p.Handle(), syscall.SIGHUP); err != nil {
		t.Fatal("a signal to the dead:", err)
	}
}

// A goroutine that ends its thread must not take children along: this is what the locked thread is for.
func TestChildSurvivesTheThreadOfItsCaller(t *testing.T) {
	t.Parallel()
	l, ctx := local(t), within(t)
	var ps []*host.Process
	done := make(chan *host.Process)
	for range 8 {
		go func() {
			lockedForEver()
			p, err := l.Start(ctx, host.Command{Argv: []string{"sleep", "300"}})
			if err != nil {
				t.Error(err)
			}
			done <- p
		}()
	}
	for range 8 {
		ps = append(ps, <-done)
	}
	time.Sleep(50 * time.Millisecond)
	for _, p := range ps {
		select {
		case <-p.Done():
			t.Fatal("a child died with its caller's thread")
		default:
		}
	}
}
