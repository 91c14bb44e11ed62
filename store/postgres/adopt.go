package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
	"github.com/toolboxai/relight/host"
)

type adoptInput struct {
	Store string `flag:"store" help:"the store; the only one when not given"`
	Why   string `flag:"why" help:"what happened, for those who come later: initdb, pg_upgrade, …"`
}

// Adopted says whose log a store takes from now on.
type Adopted struct {
	Store        string           `json:"store"`
	System       relight.SystemID `json:"system"`
	Repositories []string         `json:"repositories,omitempty"` // that took another cluster's before
	Spool        string           `json:"spool,omitempty"`        // where the former cluster's spool lies now; "" when there was none
}

// adoption is what must change for a store to take the log of the cluster that its connection leads to.
type adoption struct {
	c      Cluster
	system relight.SystemID
	former map[string]relight.SystemID // by repository, where it is another
	spool  relight.SystemID            // whose log the spool holds, when it is another
}

func (a *actions) adoption(ctx context.Context, store string) (adoption, error) {
	c, err := a.open(ctx, store)
	if err != nil {
		return adoption{}, err
	}
	conn, err := c.Store.connect(ctx, "adopt the cluster of")
	if err != nil {
		return adoption{}, err
	}
	defer closeConn(ctx, conn)
	f, err := c.Store.readFacts(ctx, conn)
	if err != nil {
		return adoption{}, err
	}
	d := adoption{c: c, system: f.System, former: map[string]relight.SystemID{}}
	for _, name := range c.Repositories {
		m, err := c.Meta(ctx, name)
		if err != nil {
			return d, err
		}
		was, err := m.Cluster(ctx, c.Store.c.Name)
		if err != nil {
			return d, err
		}
		if was != 0 && was != f.System {
			d.former[name] = was
		}
	}
	return d, d.readSpool()
}

func (d *adoption) readSpool() error {
	if d.c.Store.c.Spool == "" {
		return nil
	}
	s := &spool{dir: d.c.Store.c.Spool}
	if err := s.readIdentity(); err != nil {
		return err
	}
	if s.id.System != d.system {
		d.spool = s.id.System
	}
	return nil
}

func (d adoption) done() bool { return len(d.former) == 0 && d.spool == 0 }

// aside is where the former cluster's spool goes: its log may not all have reached a repository.
func (d adoption) aside() string { return fmt.Sprintf("%s.of-%s", d.c.Store.c.Spool, d.spool) }

func (a *actions) planAdopt(ctx context.Context, _ action.Env, in adoptInput) (action.Blast, error) {
	d, err := a.adoption(ctx, in.Store)
	if err != nil {
		return action.Blast{}, err
	}
	b := action.Blast{Target: d.c.Store.c.Name, Danger: action.Harm}
	for _, name := range d.c.Repositories {
		if was := d.former[name]; was != 0 {
			b.Lines = append(b.Lines, fmt.Sprintf("repository %s takes the log of cluster %s, and no longer that of %s; what it holds stays recoverable", name, d.system, was))
		}
	}
	if d.spool != 0 {
		b.Lines = append(b.Lines, fmt.Sprintf("the spool of cluster %s is set aside as %s", d.spool, d.aside()))
	}
	if d.done() {
		b.Danger, b.Lines = action.None, []string{fmt.Sprintf("the store takes the log of cluster %s already", d.system)}
	}
	return b, nil
}

// adopt makes a store take the log of a cluster that was made anew. The spool comes first, since it shows whether a receiver still works.
func (a *actions) adopt(ctx context.Context, _ action.Env, in adoptInput) (Adopted, error) {
	d, err := a.adoption(ctx, in.Store)
	if err != nil {
		return Adopted{}, err
	}
	out := Adopted{Store: d.c.Store.c.Name, System: d.system}
	if strings.TrimSpace(in.Why) == "" {
		return out, d.c.Store.fail("adopt the cluster of", relight.CodeUsage, `say what happened: --why "initdb after the loss of the host"`, "no reason is given")
	}
	if d.spool != 0 {
		if err := d.moveSpool(); err != nil {
			return out, err
		}
		out.Spool = d.aside()
	}
	for _, name := range d.c.Repositories {
		m, err := d.c.Meta(ctx, name)
		if err == nil {
			err = m.AdoptCluster(ctx, out.Store, d.system, in.Why)
		}
		if err != nil {
			return out, fmt.Errorf("adopt the cluster in repository %s: %w", name, err)
		}
		if d.former[name] != 0 {
			out.Repositories = append(out.Repositories, name)
		}
	}
	return out, nil
}

func (d adoption) moveSpool() error {
	s, err := openSpool(d.c.Store.c.Spool)
	if errors.Is(err, errSpoolBusy) {
		return d.c.Store.fail("adopt the cluster of", relight.CodeLeaseHeld, "stop protection first: relight protect stop", "%w", err)
	}
	if err != nil {
		return err
	}
	err = host.Move(d.c.Store.c.Spool, d.aside())
	if errors.Is(err, syscall.EBUSY) {
		err = d.c.Store.fail("adopt the cluster of", relight.CodeFailed, "move what lies in it to another place by hand, keep it, and adopt again", "the spool %s is a mount point, and cannot be set aside: %w", s.dir, err)
	}
	return errors.Join(err, s.close())
}

func (a *actions) probeAdopt(ctx context.Context, _ action.Env, in adoptInput) (action.Probed, error) {
	d, err := a.adoption(ctx, in.Store)
	if err != nil || !d.done() {
		return action.Probed{State: action.NotDone, Detail: "the store takes another cluster's log"}, err
	}
	return action.Probed{State: action.Done, Out: Adopted{Store: d.c.Store.c.Name, System: d.system}}, nil
}
