package secret

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/toolboxai/relight"
)

const (
	maxSize     = 1 << 20
	execTimeout = 30 * time.Second
)

// Options of a Resolver. Every nil has a default.
type Options struct {
	Dir        string                                                   // relative paths start here; "": the working directory
	Env        func(name string) (string, bool)                         // os.LookupEnv
	Exec       func(ctx context.Context, argv []string) ([]byte, error) // runs the program without a shell, with a minimal environment
	Identities func(ctx context.Context) ([]age.Identity, error)        // for age:; nil refuses age references
	Redactor   *Redactor                                                // learns every value that is resolved
	Log        *slog.Logger                                             // discard
}

// Resolver turns references into values. It keeps none: each use reads anew, so that a rotated secret is seen.
type Resolver struct{ o Options }

// NewResolver takes o as it is and fills what is nil.
func NewResolver(o Options) *Resolver {
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	if o.Exec == nil {
		o.Exec = runProgram
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{o: o}
}

// Resolve reads the secret. One trailing line break is cut; an empty secret is an error.
func (r *Resolver) Resolve(ctx context.Context, ref Ref) (Value, error) {
	b, err := r.read(ctx, ref)
	if err != nil {
		return Value{}, fail(ref, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return Value{}, fail(ref, hinted("the secret is empty", "put the secret where the reference points"))
	}
	v := New(string(b))
	if r.o.Redactor != nil && !r.o.Redactor.Add(v) {
		r.o.Log.Warn("secret is too short to be removed from logs", "reference", ref.String(), "minimum_bytes", minRedacted)
	}
	return v, nil
}

func (r *Resolver) read(ctx context.Context, ref Ref) ([]byte, error) {
	switch ref.scheme {
	case "env":
		s, ok := r.o.Env(ref.rest)
		if !ok {
			return nil, hinted("the variable is not set", "export "+ref.rest+" before starting relight, or set it in the unit's EnvironmentFile")
		}
		return []byte(s), nil
	case "file":
		return r.readFile(ref)
	case "exec":
		return r.readExec(ctx, ref)
	case "age":
		return r.readSealed(ctx, ref)
	default:
		return nil, hinted("no reference is given", refHint)
	}
}

func (r *Resolver) path(ref Ref) string {
	if r.o.Dir == "" || filepath.IsAbs(ref.rest) {
		return ref.rest
	}
	return filepath.Join(r.o.Dir, ref.rest)
}

func (r *Resolver) readFile(ref Ref) ([]byte, error) {
	f, err := os.Open(r.path(ref))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := r.checkMode(ref, st); err != nil {
		return nil, err
	}
	return readAll(f)
}

// checkMode judges the file that was opened, not whatever the path names by now. Pipes belong to who made them.
func (r *Resolver) checkMode(ref Ref, st os.FileInfo) error {
	if st.IsDir() {
		return hinted("it is a directory", "name the file in it")
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	mode := st.Mode().Perm()
	fix := "chmod 600 " + r.path(ref)
	if mode&0o007 != 0 {
		return hinted(fmt.Sprintf("everybody can use the file (mode %04o)", mode), fix)
	}
	if mode&0o020 != 0 {
		return hinted(fmt.Sprintf("its group can write the file (mode %04o)", mode), fix)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() && os.Geteuid() != 0 {
		return hinted(fmt.Sprintf("the file belongs to another user (uid %d)", sys.Uid), "give it to the user that runs relight")
	}
	if mode&0o040 != 0 {
		r.o.Log.Warn("secret file is readable by its group", "file", r.path(ref), "mode", fmt.Sprintf("%04o", mode))
	}
	return nil
}

func (r *Resolver) readExec(ctx context.Context, ref Ref) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	b, err := r.o.Exec(ctx, ref.argv)
	if err != nil {
		return nil, hintedErr(fmt.Errorf("run %s: %w", ref.argv[0], err), "run the command by hand, as the user that runs relight (its output is not shown here)")
	}
	if len(b) > maxSize {
		return nil, errTooLong
	}
	return b, nil
}

func (r *Resolver) readSealed(ctx context.Context, ref Ref) ([]byte, error) {
	if r.o.Identities == nil {
		return nil, hinted("the estate names no identity", "name an age identity file in the estate, or use file:")
	}
	ids, err := r.o.Identities(ctx)
	if err != nil {
		return nil, fmt.Errorf("get the identity: %w", err)
	}
	f, err := os.Open(r.path(ref))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := age.Decrypt(dearmor(f), ids...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, hintedErr(err, "seal the file to the estate's recipient: age -r RECIPIENT -o "+ref.rest)
	}
	if err != nil {
		return nil, hintedErr(err, "check that the file is an age file and whole")
	}
	return readAll(plain)
}

func dearmor(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	if head, _ := b.Peek(len(armor.Header)); string(head) == armor.Header {
		return armor.NewReader(b)
	}
	return b
}

var errTooLong = fmt.Errorf("the secret is longer than %d bytes", maxSize)

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = errTooLong
	}
	return b, err
}

// runProgram discards standard error: what a password tool complains about may quote the password.
func runProgram(ctx context.Context, argv []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("it ended with %s", exit.ProcessState)
	}
	return out, err
}

func fail(ref Ref, err error) error {
	e := &relight.Error{Op: "resolve secret", Subject: ref.String(), Code: relight.CodeUsage, Err: err, Hint: relight.HintOf(err)}
	if e.Hint == "" && errors.Is(err, os.ErrNotExist) {
		e.Hint = "create the file, or correct the reference"
	}
	return e
}

func hinted(msg, hint string) error { return hintedErr(errors.New(msg), hint) }

func hintedErr(err error, hint string) error { return &relight.Error{Err: err, Hint: hint} }
