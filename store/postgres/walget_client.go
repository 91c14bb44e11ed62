package postgres

import (
	"bufio"
	"bytes"
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
	"syscall"
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

// WALGet fetches one file from a WALServer's socket into dest, for restore_command: written beside dest, complete, renamed. It is not synced: the server
// syncs what it keeps, and asks again for what a crash takes. It needs neither key nor credential. The error says why the exit code is
// not zero.
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

// errNoFile says that an open file was promised and did not arrive: something stands between that passes bytes only.
var errNoFile = errors.New("the file did not come through")

func walGet(ctx context.Context, socket, name, dest string) error {
	if name == "" || strings.ContainsAny(name, "/\n ") {
		return fmt.Errorf("%q is not the name of a WAL file", name)
	}
	err := walAsk(ctx, socket, askFile, name, dest)
	if errors.Is(err, errNoFile) {
		return walAsk(ctx, socket, askBytes, name, dest)
	}
	return err
}

func walAsk(ctx context.Context, socket, verb, name, dest string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.New("the server of WAL does not answer: " + err.Error())
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "%s %s\n", verb, name); err != nil {
		return err
	}
	first, file, err := receiveFirst(conn)
	if err != nil {
		return err
	}
	if file != nil {
		defer func() { _ = file.Close() }()
	}
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(first), conn), 64<<10)
	size, digest, err := readReply(r)
	switch {
	case err != nil:
		return err
	case digest != nil:
		return receiveFile(r, size, digest, dest)
	case file == nil:
		return errNoFile
	}
	return writeBeside(dest, func(f *os.File) error {
		n, err := io.Copy(f, file) // inside the kernel, where it can
		if err == nil && n != size {
			err = fmt.Errorf("the file has %d of %d bytes", n, size)
		}
		return err
	})
}

// receiveFirst reads the beginning of an answer, and the open file that may come with it.
func receiveFirst(conn net.Conn) ([]byte, *os.File, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, nil
	}
	b, rights := make([]byte, 4<<10), make([]byte, syscall.CmsgSpace(4))
	n, nr, _, _, err := u.ReadMsgUnix(b, rights)
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	file, err := fileOf(rights[:nr])
	return b[:n], file, err
}

func fileOf(rights []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errNoFile, err)
	}
	return os.NewFile(uintptr(fds[0]), "WAL file"), nil
}

// readReply reads the first line: the size, and the digest of the bytes that follow, nil when none do because an open file came instead.
func readReply(r *bufio.Reader) (size int64, digest []byte, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer: %w", err)
	}
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch word {
	case replyFile:
		size, err = strconv.ParseInt(rest, 10, 64)
		if err != nil || size < 0 {
			return 0, nil, fmt.Errorf("answer %q is not understood", rest)
		}
		return size, nil, nil
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

func receiveFile(r io.Reader, size int64, digest []byte, dest string) error {
	return writeBeside(dest, func(f *os.File) error {
		h := blake3.New()
		n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, size+1))
		if err != nil {
			return err
		}
		if n != size || string(h.Sum(nil)) != string(digest) {
			return fmt.Errorf("received %d of %d bytes, or other bytes than were sent", n, size)
		}
		return nil
	})
}

// writeBeside fills a temporary file and renames it to dest: what is at dest is complete.
func writeBeside(dest string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(dest), ".relight-wal-*")
	if err != nil {
		return err
	}
	err = errors.Join(fill(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), dest)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(f.Name()))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
