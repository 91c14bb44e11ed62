package host

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/toolboxai/relight"
)

// User is whom a child runs as.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
}

// LookupUser finds a user by name or decimal uid, with the groups it belongs to.
func LookupUser(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u2, err2 := user.LookupId(name); err2 == nil {
			u, err = u2, nil
		}
	}
	if err != nil {
		return User{}, &relight.Error{Op: "look up", Subject: "user " + name, Code: relight.CodeNotFound, Err: err,
			Hint: "create the user, or name the one that owns the data"}
	}
	return fromAccount(u)
}

// OwnerOf is the user that owns path. An owner without an account has neither name nor supplementary groups.
func OwnerOf(path string) (User, error) {
	st, err := os.Stat(path)
	if err != nil {
		return User{}, fmt.Errorf("find the owner: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return User{}, fmt.Errorf("find the owner of %s: the file system tells none", path)
	}
	if account, err := user.LookupId(strconv.Itoa(int(sys.Uid))); err == nil {
		if u, err := fromAccount(account); err == nil {
			return u, nil
		}
	}
	return User{UID: sys.Uid, GID: sys.Gid}, nil
}

func fromAccount(a *user.User) (User, error) {
	uid, err := strconv.ParseUint(a.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("read uid of %s: %w", a.Username, err)
	}
	gid, err := strconv.ParseUint(a.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("read gid of %s: %w", a.Username, err)
	}
	ids, err := a.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("read groups of %s: %w", a.Username, err)
	}
	u := User{Name: a.Username, UID: uint32(uid), GID: uint32(gid), Home: a.HomeDir}
	for _, s := range ids {
		id, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("read groups of %s: %w", a.Username, err)
		}
		u.Groups = append(u.Groups, uint32(id))
	}
	return u, nil
}

// credential is nil when nothing has to change.
func (u *User) credential() (*syscall.Credential, error) {
	if u == nil {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		if int(u.UID) == os.Geteuid() {
			return nil, nil
		}
		return nil, &relight.Error{Op: "become", Subject: "user " + u.label(), Code: relight.CodeFailed,
			Err: fmt.Errorf("only root may become another user"), Hint: "run relight as root, or as that user"}
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}, nil
}

func (u *User) label() string {
	if u.Name != "" {
		return u.Name
	}
	return strconv.Itoa(int(u.UID))
}
