package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/toolboxai/relight/action"
)

// confirmBlast shows what an action is about to change and asks for the target's name.
func (s *session) confirmBlast(ctx context.Context, b action.Blast) error {
	fmt.Fprintf(s.Err, "\n%s, danger: %s\n", b.Action, b.Danger)
	for _, line := range b.Lines {
		fmt.Fprintf(s.Err, "  %s\n", line)
	}
	if s.confirm != "" {
		return b.Match(s.confirm)
	}
	if !s.interactive() {
		return b.Ask(ctx, action.Env{})
	}
	typed, err := s.ask(ctx, fmt.Sprintf("type %s to go on: ", b.Target))
	if err != nil {
		return err
	}
	return b.Match(typed)
}

// announce shows what is about to happen where nobody has to confirm it.
func (s *session) announce(b action.Blast) {
	for _, line := range b.Lines {
		fmt.Fprintf(s.Err, "  %s\n", line)
	}
}

// ask reads one line from the terminal. The read cannot be interrupted, so the process ends with it pending when ctx ends first.
func (s *session) ask(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(s.Err, prompt)
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(oneByte{s.In}).ReadString('\n')
		got <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-got:
		return a.line, a.err
	}
}

// oneByte reads no further than asked, so that the next question finds its answer.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return o.r.Read(p[:1])
}
