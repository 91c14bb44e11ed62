package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
)

// relight runs a relight command on the demonstration's estate and gives the last JSON record that it printed.
func (s *stand) relight(ctx context.Context, args ...string) (json.RawMessage, error) {
	return s.relightAt(ctx, append([]string{"--config", s.layout.config()}, args...)...)
}

// relightAt runs a relight command as a process of its own, as a user would.
func (s *stand) relightAt(ctx context.Context, args ...string) (json.RawMessage, error) {
	s.d.Report.Command(append([]string{s.o.Program}, args...))
	var out bytes.Buffer
	err := host.Run(ctx, s.d.Host, host.Command{Argv: append([]string{s.o.Executable, "--json", "--no-input"}, args...), Dir: "/",
		Env: []string{"RELIGHT_ACTOR=demo"}, Stdout: &out, Stderr: s.d.Report.Output(), What: "relight " + args[len(args)-1]}, 10*time.Second)
	last := lastLine(out.Bytes())
	return last, commandError(err, last)
}

func lastLine(b []byte) json.RawMessage {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return json.RawMessage(lines[len(lines)-1])
}

// commandError gives a failed command's own words and code back.
func commandError(err error, last json.RawMessage) error {
	var ended *host.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	var said struct {
		Type  string       `json:"type"`
		Error string       `json:"error"`
		Hint  string       `json:"hint"`
		Code  relight.Code `json:"code"`
	}
	if json.Unmarshal(last, &said) != nil || said.Type != "error" {
		return err
	}
	return &relight.Error{Code: said.Code, Err: errors.New(said.Error), Hint: said.Hint}
}

func (s *stand) connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to the demonstration's database: %w", err)
	}
	return conn, nil
}

// decode reads a command's last record.
func decode[T any](raw json.RawMessage, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil && !errors.Is(err, io.EOF) {
		return v, fmt.Errorf("read a command's answer: %w", err)
	}
	return v, nil
}
