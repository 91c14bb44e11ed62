package pgtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/toolboxai/relight/host"
	"golang.org/x/sys/unix"
)

// MakeCluster makes the data directory dir, which is not there yet, as initdb does: with page checksums, for the superuser postgres, trusted without a
// password. Options are initdb's. owner, who runs PostgreSQL's programs, is needed by root alone: "" is the test's own user.
//
// initdb takes a second of processor, and tests make a hundred clusters. So one of each kind is made once for this user, and copied; a copy is given
// a system identifier and a log of its own, as initdb gives them.
func MakeCluster(bin, owner, dir string, options ...string) error {
	m := maker{bin: bin}
	if owner != "" {
		u, err := host.LookupUser(owner)
		if err != nil {
			return err
		}
		m.as = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	}
	if slices.ContainsFunc(options, elsewhere) {
		return m.initdb(dir, options)
	}
	kept, err := m.kept(options)
	if err != nil {
		return err
	}
	if err := m.run("cp", "-a", "--reflink=auto", kept, dir); err != nil {
		return err
	}
	return m.rename(dir)
}

// elsewhere tells whether an option of initdb puts the log outside of the data directory: such a cluster cannot be copied.
func elsewhere(option string) bool { return option == "-X" || strings.HasPrefix(option, "--waldir") }

type maker struct {
	bin string
	as  *syscall.Credential
}

func (m maker) run(program string, args ...string) error {
	cmd := prepare(exec.Command(program, args...), "/", m.as)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, out)
	}
	return nil
}

// prepare has a program run in dir, as another user where there is one, in an environment that is the same on every machine.
func prepare(cmd *exec.Cmd, dir string, as *syscall.Credential) *exec.Cmd {
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	return cmd
}

func (m maker) initdb(dir string, options []string) error {
	args := []string{"-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-k", "-N"}
	return m.run(filepath.Join(m.bin, "initdb"), append(args, options...)...)
}

// kept gives the cluster of this kind that is copied, and makes it if there is none. It has its name only when it is complete.
func (m maker) kept(options []string) (string, error) {
	cache, err := m.cache()
	if err != nil {
		return "", err
	}
	server, err := os.Stat(filepath.Join(m.bin, "postgres"))
	if err != nil {
		return "", err
	}
	kind := sha256.Sum256(fmt.Append(nil, m.bin, server.Size(), server.ModTime(), options))
	dir := filepath.Join(cache, fmt.Sprintf("cluster-%x", kind[:6]))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // tests of several packages come at once
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished := dir + ".new"
	if err := errors.Join(os.RemoveAll(unfinished), m.initdb(unfinished, options), emptyLog(unfinished)); err != nil {
		return "", err
	}
	return dir, os.Rename(unfinished, dir)
}

// cache is a directory that both the test's user and the one who runs PostgreSQL can use.
func (m maker) cache() (string, error) {
	if m.as == nil {
		base, err := os.UserCacheDir()
		dir := filepath.Join(base, "relight")
		return dir, errors.Join(err, os.MkdirAll(dir, 0o755))
	}
	dir := "/var/cache/relight/clusters"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(m.as.Uid), int(m.as.Gid))
}

// emptyLog takes away what every copy makes anew.
func emptyLog(dir string) error {
	segments, err := filepath.Glob(filepath.Join(dir, "pg_wal", "????????????????????????"))
	for _, s := range segments {
		err = errors.Join(err, os.Remove(s))
	}
	return err
}

// rename gives the cluster a system identifier of its own, and a log that begins with it.
func (m maker) rename(dir string) error {
	path := filepath.Join(dir, "global/pg_control")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end, err := controlEnd(b)
	if err != nil {
		return err
	}
	if _, err := rand.Read(b[:8]); err != nil {
		return err
	}
	b[7] &= 0x7f // it is shown as a signed number
	binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return m.run(filepath.Join(m.bin, "pg_resetwal"), "-f", "-D", dir)
}

// controlEnd finds the checksum of pg_control, which is its last field and lies elsewhere in each version.
func controlEnd(b []byte) (int, error) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for end := 8; end+4 <= len(b); end += 4 {
		if crc32.Checksum(b[:end], castagnoli) == binary.LittleEndian.Uint32(b[end:]) {
			return end, nil
		}
	}
	return 0, errors.New("pg_control holds no checksum of itself")
}
