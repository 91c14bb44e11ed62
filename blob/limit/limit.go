// Package limit wraps a storage so that backups leave bandwidth for others. It promises that over any stretch of time no
// more bytes are read, and no more written, than the rate allows plus one burst of at most a second; listing,
// describing and deleting are not delayed.
package limit

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/toolboxai/relight/blob"
)

// Rates are in bytes per second; 0 is without limit.
type Rates struct {
	Read  int64
	Write int64
}

// Clock is what the limit waits by.
type Clock struct {
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error // returns ctx's error when it ends first
}

// Storage delays reads and writes.
type Storage struct {
	blob.Storage
	read, write *bucket
}

// New wraps s; all readers share one rate, all writers another.
func New(s blob.Storage, r Rates, c Clock) *Storage {
	return &Storage{Storage: s, read: newBucket(r.Read, c), write: newBucket(r.Write, c)}
}

// Put stores an object no faster than the write rate.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if s.write == nil {
		return s.Storage.Put(ctx, name, body, o)
	}
	return s.Storage.Put(ctx, name, &upload{paced: paced{ctx: ctx, r: body, b: s.write}, Seeker: body}, o)
}

// Get opens an object that can be read no faster than the read rate.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	rc, err := s.Storage.Get(ctx, name, offset, length)
	if err != nil || s.read == nil {
		return rc, err
	}
	return &download{paced: paced{ctx: ctx, r: rc, b: s.read}, Closer: rc}, nil
}

type upload struct {
	paced
	io.Seeker
}

type download struct {
	paced
	io.Closer
}

// paced lives as long as one operation, whose context it carries.
type paced struct {
	ctx context.Context
	r   io.Reader
	b   *bucket
}

func (p *paced) Read(buf []byte) (int, error) {
	if int64(len(buf)) > p.b.burst {
		buf = buf[:p.b.burst]
	}
	n, err := p.r.Read(buf)
	if wait := p.b.take(int64(n)); wait > 0 {
		if err := p.b.clock.Sleep(p.ctx, wait); err != nil {
			return n, err
		}
	}
	return n, err
}

// bucket holds up to burst bytes and refills at rate. It may go into debt, which the one who made it sleeps off.
type bucket struct {
	rate  int64
	burst int64
	clock Clock

	mu    sync.Mutex
	level float64 // bytes
	last  time.Time
}

func newBucket(rate int64, c Clock) *bucket {
	if rate <= 0 {
		return nil
	}
	burst := max(1, min(rate, 256<<10))
	return &bucket{rate: rate, burst: burst, clock: c, level: float64(burst), last: c.Now()}
}

// take removes n bytes and says how long to wait until they have been earned.
func (b *bucket) take(n int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	b.level = min(float64(b.burst), b.level+now.Sub(b.last).Seconds()*float64(b.rate))
	b.last = now
	b.level -= float64(n)
	if b.level >= 0 {
		return 0
	}
	return time.Duration(-b.level / float64(b.rate) * float64(time.Second))
}
