// Package conform asks a storage whether it keeps the promises of the port.
//
// It promises to touch only names below one fresh prefix and to remove them again, also after ctx ended, to run every
// check whatever the others say, and to report what it could not find out as failed. It needs nothing from package
// testing, so that operators can put the same questions to their storage as relight's own tests do. What no program
// can ask is whether an acknowledged object survives the loss of power; each driver's own tests show that.
package conform

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// DefaultLarge is the size of the large object in bytes: beyond what one request to an object store may carry.
const DefaultLarge = 64 << 20

// Options of a run of the checks.
type Options struct {
	Large int64     // size of the large object in bytes; 0: DefaultLarge
	Rand  io.Reader // names the prefix; crypto/rand.Reader outside tests
}

// check is one question. It has its own directory, so checks do not see each other's objects.
type check struct {
	name string
	ask  func(ctx context.Context, p place) error
}

// place is where a check may write.
type place struct {
	blob.Storage
	dir   string // ends in a slash
	large int64
}

func (p place) name(elem string) string { return p.dir + elem }

// Check puts every question to s, tells report each answer (nil: passed) and removes what it wrote. The error counts the
// failed checks and has relight.CodeVerification.
func Check(ctx context.Context, s blob.Storage, o Options, report func(name string, err error)) error {
	var token [8]byte
	if _, err := io.ReadFull(o.Rand, token[:]); err != nil {
		return fmt.Errorf("check storage %s: choose a prefix: %w", s, err)
	}
	root := place{Storage: s, dir: "relight-check/" + hex.EncodeToString(token[:]) + "/", large: o.Large}
	if root.large == 0 {
		root.large = DefaultLarge
	}
	var failed []string
	for _, c := range checks() {
		err := c.run(ctx, root)
		report(c.name, err)
		if err != nil {
			failed = append(failed, c.name)
		}
	}
	return verdict(s, failed)
}

func verdict(s blob.Storage, failed []string) error {
	if len(failed) == 0 {
		return nil
	}
	return &relight.Error{
		Op: "check storage", Subject: s.String(), Code: relight.CodeVerification,
		Err:  fmt.Errorf("%d checks failed: %s", len(failed), strings.Join(failed, "; ")),
		Hint: "do not keep backups there until every check passes",
	}
}

func (c check) run(ctx context.Context, root place) error {
	p := root
	p.dir += strings.ReplaceAll(c.name, " ", "-") + "/"
	err := c.ask(ctx, p)
	return errors.Join(err, cleanUp(context.WithoutCancel(ctx), p))
}

// cleanUp removes what a check wrote and sees that it is gone.
func cleanUp(ctx context.Context, p place) error {
	names, err := listed(ctx, p, p.dir)
	for _, name := range names {
		err = errors.Join(err, p.Delete(ctx, name))
	}
	if err != nil {
		return fmt.Errorf("clean up %s: %w", p.dir, err)
	}
	if left, err := listed(ctx, p, p.dir); err != nil || len(left) > 0 {
		return fmt.Errorf("clean up %s: %d objects are left: %w", p.dir, len(left), errors.Join(err, errLeft))
	}
	return nil
}

var errLeft = errors.New("deleted objects are still listed")

// Names lists the checks in the order in which Check runs them.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

func checks() []check {
	return []check{
		{"stores and reads back", storesAndReads},
		{"stores the rest of a body", storesRest},
		{"keeps objects as they are", keepsObjects},
		{"replaces when told", replaces},
		{"reads ranges", readsRanges},
		{"refuses ranges beyond the end", refusesRanges},
		{"says what is absent", saysAbsent},
		{"deletes", deletes},
		{"describes objects", describes},
		{"lists in byte order", listsInOrder},
		{"lists by prefix", listsByPrefix},
		{"stops listing when told", stopsListing},
		{"refuses bad names", refusesNames},
		{"takes long names", takesLongNames},
		{"leaves nothing of a failed write", leavesNothing},
		{"stops when cancelled", stopsCancelled},
		{"lets one of several writers win", oneWriterWins},
		{"replaces in one step", replacesAtOnce},
		{"serves many at once", servesMany},
		{"stores a large object", storesLarge},
	}
}
