package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// limits measures what the machine can do at best, for orientation.
func (b *bench) limits(ctx context.Context) error {
	for range b.o.rounds {
		if err := b.jail.settle(data + "/base"); err != nil {
			return err
		}
		u, err := b.jail.use(ctx, "/bin/sh", "-c", "find "+data+"/base -type f | xargs cat | zstd -1 -T0 -c | wc -c")
		if err != nil {
			return err
		}
		var size float64
		if _, err := fmt.Sscan(u.stdout, &size); err != nil {
			return err
		}
		b.res.add("limits", "zstd -1 -T0 of the data", "s", "machine", u.wall)
		b.res.add("limits", "zstd -1 -T0 of the data: bytes", "MB", "machine", size/1e6)
		const megabytes = 1024
		if err := b.jail.settle(data + "/base"); err != nil {
			return err
		}
		u, err = b.jail.use(ctx, "/bin/dd", "if=/dev/zero", "of="+mounted+"/dd", "bs=1M", fmt.Sprintf("count=%d", megabytes), "conv=fsync")
		if err != nil {
			return err
		}
		b.res.add("limits", "dd conv=fsync", "MB/s", "machine", megabytes*1.048576/u.wall)
		if err := b.jail.remove(mounted + "/dd"); err != nil {
			return err
		}
	}
	return nil
}

const steps = 200

// engine measures what a step of a runbook costs beside the command that it runs.
func (b *bench) engine(ctx context.Context) error {
	for name, n := range map[string]int{"one": 1, "many": steps + 1} {
		var text strings.Builder
		fmt.Fprintf(&text, "---\nrunbook: bench-%s\ntitle: nothing, %d times\n---\n\n## Recover\n", name, n)
		for i := range n {
			fmt.Fprintf(&text, "\n### Step %d\n```step\nid: s%d\nrun: [/bin/true]\n```\n", i, i)
		}
		path := b.jail.host(ours + "/runbooks/bench-" + name + ".md")
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			return err
		}
		if _, err := b.ours.relight(ctx, "runbook", "approve", "bench-"+name); err != nil {
			return err
		}
	}
	for range b.o.rounds {
		one, err := b.ours.relight(ctx, "run", "start", "bench-one")
		if err != nil {
			return err
		}
		many, err := b.ours.relight(ctx, "run", "start", "bench-many")
		if err != nil {
			return err
		}
		bare, err := b.jail.use(ctx, "/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", steps))
		if err != nil {
			return err
		}
		b.res.add("engine", "a runbook's step", "ms", "relight", (many.wall-one.wall)/steps*1000)
		b.res.add("engine", "a runbook's step", "ms", "a shell's loop", bare.wall/steps*1000)
	}
	return nil
}
