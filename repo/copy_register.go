package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// A copy refers to what is in the mirror, and so must not be overtaken by the mirror's own retention. It registers there as a backup does. But what it needs has
// a name already, so it cannot store anew what is marked: instead retention announces what it is about to delete, and looks for copies afterwards, while a
// copy registers, and looks for announcements afterwards. So one of the two sees the other.

// register announces the copy in the mirror, before it looks at anything there; end takes that back.
func (c *copier) register(ctx context.Context) (end func(), err error) {
	if !c.m.keys.CanWrite() {
		return nil, usage("copy", c.to.String(), "use a writer's credential", "the keys at hand cannot sign the registration of a copy")
	}
	suffix, err := randomHex(c.m.rand, 8)
	if err != nil {
		return nil, err
	}
	p := pendingRecord{Host: c.m.keys.Host(), Started: c.m.now().UTC(), Copy: true}
	p.Snapshot = relight.SnapshotID(p.Started.Format("20060102T150405Z") + "-copy-" + suffix)
	if err := c.mirror.putSigned(ctx, "pending", pendingName(p.Snapshot), p, sealedMeta); err != nil {
		return nil, fmt.Errorf("register copy: %w", err)
	}
	c.id = p.Snapshot
	return func() { c.mirror.endPending(context.WithoutCancel(ctx), p, "it ended") }, nil
}

// registered asks whether the copy is still waited for.
func (c *copier) registered(ctx context.Context) error {
	_, err := c.to.Stat(ctx, pendingName(c.id))
	if errors.Is(err, blob.ErrNotFound) {
		return &relight.Error{Op: "copy", Subject: c.to.String(), Code: relight.CodeFailed,
			Err: errors.New("the copy was taken for dead meanwhile, and what it relied upon may be gone"), Hint: "copy again: it goes on with what is missing"}
	}
	if err != nil {
		return fmt.Errorf("look for the registration: %w", err)
	}
	return nil
}

// leave notes what the mirror's retention is deleting, or was when it died, and the repository still has: it is neither there nor can it be put there.
func (c *copier) leave(ctx context.Context) error {
	marks, err := c.mirror.readTrash(ctx)
	if err != nil {
		return err
	}
	c.off = newObjectSet()
	rooms := map[string]bool{}
	for name := range marks.announced() {
		room, _, _ := strings.Cut(name, "/")
		rooms[room+"/"] = true
	}
	for room := range rooms {
		list, err := listNames(ctx, c.m.storage, room)
		if err != nil {
			return err
		}
		c.off.know(list)
	}
	for name := range marks.announced() {
		c.off.addListed(name)
	}
	return nil
}

// withhold leaves all snapshots for the next copy, when what they need is seen to stay, or can be put again.
func (c *copier) withhold(mans []Manifest) {
	const why = "the mirror's retention is deleting what it may need"
	for _, man := range mans {
		c.out.Withheld = append(c.out.Withheld, string(man.ID)+": "+why)
	}
	if len(mans) == 0 {
		c.out.Withheld = append(c.out.Withheld, fmt.Sprintf("%d objects: the mirror's retention is deleting them", c.off.count()))
	}
}
