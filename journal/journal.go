package journal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/toolboxai/relight"
)

// Options of a Journal. Host, Actor, Signer and Now are needed.
type Options struct {
	Host   string
	Actor  string // who appends when an event does not say
	Signer ed25519.PrivateKey
	Now    func() time.Time

	Alive func(relight.Handle) (bool, error) // whether a lease's owner still lives; nil: every owner does
	Scrub func([]byte) []byte                // takes known secrets out; nil: there are none
	Rand  io.Reader                          // nil: crypto/rand
	Log   *slog.Logger                       // nil: discard
	Poll  time.Duration                      // how often Watch looks; 0: 50 ms
}

// Journal is an open journal.
type Journal struct {
	o      Options
	path   string
	id     string
	signer string
	write  *sql.DB // one connection; its transactions are IMMEDIATE
	read   *sql.DB

	mu   sync.Mutex
	seen Head // the newest head that this process has read or written
}

// Head is the end of the chain. Seq 0 is an empty journal.
type Head struct {
	Seq  int64 `json:"seq"`
	Hash Hash  `json:"hash"`
}

// The refusals of Append.
var (
	// ErrConflict: the run has gone on since the caller looked.
	ErrConflict = errors.New("the run has newer events")
	// ErrStale: the lease under which the caller acts is over.
	ErrStale = errors.New("the lease was taken over or given back")
	// ErrTampered: what this process saw in the journal is no longer there.
	ErrTampered = errors.New("events that were there are gone or changed")
)

// Open opens the journal at path, and makes it if it is not there. Its directory must exist.
func Open(ctx context.Context, path string, o Options) (*Journal, error) {
	if o.Host == "" || o.Actor == "" || len(o.Signer) != ed25519.PrivateKeySize || o.Now == nil {
		return nil, fmt.Errorf("open journal %s: host, actor, signing key and clock are needed", path)
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Poll <= 0 {
		o.Poll = 50 * time.Millisecond
	}
	public, ok := o.Signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("open journal %s: the signing key is no Ed25519 key", path)
	}
	j := &Journal{o: o, path: path, signer: Fingerprint(public)}
	if err := j.open(ctx); err != nil {
		return nil, explain("open journal", path, errors.Join(err, j.Close()))
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) error {
	var err error
	if j.write, err = connect(j.path, writing); err != nil {
		return err
	}
	j.write.SetMaxOpenConns(1)
	if err := insist(ctx, func() error { return prepare(ctx, j.write, j.path, j.o.Host, j.o.Rand) }); err != nil {
		return err
	}
	if j.read, err = connect(j.path, reading); err != nil {
		return err
	}
	j.read.SetMaxOpenConns(4)
	var host string
	if j.id, host, err = identity(ctx, j.read); err != nil {
		return err
	}
	if host != j.o.Host {
		return hinted(fmt.Errorf("it is the journal of host %s, not of %s", host, j.o.Host),
			"give each host its own state directory; to keep the old journal, move it aside")
	}
	j.seen, err = head(ctx, j.read, j.id, host)
	return err
}

// Close ends the connections. The file stays whole whether or not it is called.
func (j *Journal) Close() error {
	var errs []error
	for _, db := range []*sql.DB{j.read, j.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// ID is the identity of this journal.
func (j *Journal) ID() string { return j.id }

// Host is the host whose journal this is.
func (j *Journal) Host() string { return j.o.Host }

// Head is the present end of the chain.
func (j *Journal) Head(ctx context.Context) (Head, error) {
	h, err := head(ctx, j.read, j.id, j.o.Host)
	return h, explain("read journal", j.path, err)
}

// sighted remembers the newest head.
func (j *Journal) sighted(h Head) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if h.Seq > j.seen.Seq {
		j.seen = h
	}
}

func (j *Journal) lastSeen() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seen
}
