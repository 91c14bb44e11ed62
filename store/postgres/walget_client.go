package postgres

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/blake3"
)

// Exit codes of relight wal-get. PostgreSQL takes 1 to 125 for "the file does not exist" and goes on without it; above 125 recovery
// stops. So 1 stands for proven absence alone.
const (
	WALGetDone   = 0
	WALGetAbsent = 1
	WALGetFailed = 126
)

// WALGet fetches one file from a WALServer's socket into dest, for restore_command: written beside dest, verified, synced,
// renamed. It needs neither key nor credential. The error says why the exit code is not zero.
func WALGet(ctx context.Context, socket, name, dest string) (exit int, err error) {
	err = walGet(ctx, socket, name, dest)
	switch {
	case err == nil:
		return WALGetDone, nil
	case errors.Is(err, errAbsent):
		return WALGetAbsent, fmt.Errorf("wal-get %s: %w", name, err)
	default:
		return WALGetFailed, fmt.Errorf("wal-get %s: %w", name, err)
	}
}

func walGet(ctx context.Context, socket, name, dest string) error {
	if name == "" || strings.ContainsAny(name, "/\n ") {
		return fmt.Errorf("%q is not the name of a WAL file", name)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.New("the server of WAL does not answer: " + err.Error())
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "get %s\n", name); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	size, digest, err := readReply(r)
	if err != nil {
		return err
	}
	return receiveFile(r, size, digest, dest)
}

func readReply(r *bufio.Reader) (size int64, digest []byte, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer: %w", err)
	}
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch word {
	case replyAbsent:
		return 0, nil, errAbsent
	case replyError:
		return 0, nil, errors.New(rest)
	case replyOK:
	default:
		return 0, nil, fmt.Errorf("answer %q is not understood", word)
	}
	length, sum, _ := strings.Cut(rest, " ")
	size, err = strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 {
		return 0, nil, fmt.Errorf("answer %q is not understood", rest)
	}
	digest, err = hex.DecodeString(sum)
	if err != nil || len(digest) != 32 {
		return 0, nil, fmt.Errorf("answer %q is not understood", rest)
	}
	return size, digest, nil
}

func receiveFile(r io.Reader, size int64, digest []byte, dest string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(dest), ".relight-wal-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), removeIfThere(f.Name()))
		}
	}()
	h := blake3.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if n != size || string(h.Sum(nil)) != string(digest) {
		return fmt.Errorf("received %d of %d bytes, or other bytes than were sent", n, size)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), dest); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(dest))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
