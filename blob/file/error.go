package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

var (
	errRootGone = errors.New("the storage's directory is no longer the one that was opened")
	errForeign  = errors.New("neither a file nor a directory")
)

// failed tells what was being done on what, and what to do next.
func failed(op, subject, root string, err error) error {
	e := &relight.Error{Op: op, Subject: subject, Err: err}
	switch {
	case errors.Is(err, blob.ErrNotFound):
		e.Code = relight.CodeNotFound
	case errors.Is(err, blob.ErrName), errors.Is(err, blob.ErrRange):
		e.Code = relight.CodeUsage
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, blob.ErrExists):
	default:
		e.Code, e.Hint = explain(root, err)
	}
	if errors.Is(err, syscall.EROFS) {
		e.Err = fmt.Errorf("%w: %w", blob.ErrReadOnly, err)
	}
	return e
}

func explain(root string, err error) (relight.Code, string) {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return relight.CodeFailed, fmt.Sprintf("free space on the file system of %s (df -h %[1]s; df -i %[1]s), then try again", root)
	case errors.Is(err, syscall.EROFS):
		return relight.CodeFailed, fmt.Sprintf("mount the file system of %s writable, or use another storage", root)
	case errors.Is(err, fs.ErrPermission):
		return relight.CodeFailed, fmt.Sprintf("give uid %d access to everything below %s, or run as its owner (ls -ld %[2]s)", os.Getuid(), root)
	case errors.Is(err, errRootGone):
		return relight.CodeFailed, fmt.Sprintf("mount the disk that holds %s again, then try again", root)
	case errors.Is(err, errForeign):
		return relight.CodeFailed, fmt.Sprintf("move links and devices out of %s: a storage holds files and directories only", root)
	case errors.Is(err, syscall.EXDEV):
		return relight.CodeFailed, fmt.Sprintf("keep all of %s on one file system: objects are moved into place", root)
	case errors.Is(err, syscall.ENOTDIR):
		return relight.CodeUsage, "name a directory, not a file"
	case errors.Is(err, fs.ErrNotExist):
		return relight.CodeNotFound, fmt.Sprintf("check the path, mount the disk that holds %s, or make a new repository there with `relight repo init`", root)
	case errors.Is(err, syscall.EIO):
		return relight.CodeFailed, fmt.Sprintf("the disk below %s fails: read the kernel's log and copy the repository elsewhere", root)
	}
	return relight.CodeFailed, ""
}
