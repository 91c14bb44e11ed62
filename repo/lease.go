package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// ErrLeaseHeld says that somebody else holds a lease, or has taken it over.
var ErrLeaseHeld = errors.New("lease is held")

// Lease is the right to be the only one doing something. It ends unless it is renewed within its TTL.
//
// Taking over is safe without synchronous clocks: the taker watches the heartbeat for the holder's whole TTL
// and a margin on its own monotonic clock; the holder counts the TTL from before its last successful
// heartbeat on its own. Epoch fences what a holder did not notice in time: commits carry it.
type Lease struct {
	m     *Meta
	what  string
	epoch int64
	ttl   time.Duration

	mu   sync.Mutex
	beat int64
	last time.Time // before the last successful heartbeat
	lost bool
}

type leaseRecord struct {
	What  string        `json:"what"`
	Epoch int64         `json:"epoch"`
	Host  string        `json:"host"`
	TTL   time.Duration `json:"ttl_ns"`
	At    time.Time     `json:"at"`
	Nonce string        `json:"nonce"`
}

type leaseBeat struct {
	Epoch    int64     `json:"epoch"`
	Beat     int64     `json:"beat"`
	Released bool      `json:"released,omitempty"`
	At       time.Time `json:"at"`
}

// beatSuffix follows a lease's name in that of its heartbeat.
const beatSuffix = ".beat"

func leasePrefix(what string) string { return "lease/" + what + "/" }

func leaseName(what string, epoch int64) string {
	return leasePrefix(what) + strconv.FormatInt(epoch, 10)
}

func beatName(what string, epoch int64) string { return leaseName(what, epoch) + beatSuffix }

// Waiting says whose lease is waited for before it is taken over.
type Waiting int

// Whose.
const (
	ForAnybody    Waiting = iota
	ForOtherHosts         // the caller has made sure, by a kernel lock, that no other process of this host holds it
	ForNobody             // whoever holds it is to lose it: he notices at his next heartbeat
)

// Acquire takes the lease of what, a name that may contain slashes. A lease whose holder is silent is taken
// over after the holder's TTL, for which Acquire waits; one whose holder is alive is an error with
// CodeLeaseHeld that names it.
func (m *Meta) Acquire(ctx context.Context, what string, ttl time.Duration) (*Lease, error) {
	return m.acquire(ctx, what, ttl, ForAnybody)
}

// acquire is Acquire, which waits for whom it is told to.
func (m *Meta) acquire(ctx context.Context, what string, ttl time.Duration, wait Waiting) (*Lease, error) {
	if err := validName("lease", what); err != nil {
		return nil, err
	}
	if ttl <= 0 {
		return nil, fmt.Errorf("acquire lease %s: a time to live of %s", what, ttl)
	}
	for range leaseAttempts {
		newest, err := m.newestLease(ctx, what)
		if err != nil {
			return nil, err
		}
		if newest > 0 && wait != ForNobody {
			err = m.awaitSilence(ctx, what, newest, wait == ForOtherHosts)
		}
		if errors.Is(err, blob.ErrNotFound) {
			continue // others took and left it meanwhile, and cleared it away
		}
		if err != nil {
			return nil, err
		}
		return m.takeLease(ctx, what, newest+1, ttl)
	}
	return nil, heldError(what, leaseRecord{Host: "others, one after the other,", At: m.now(), TTL: ttl})
}

// lookEvery is how often a heartbeat is looked at, at the least.
const lookEvery = time.Second

// leaseAttempts is how often Acquire looks anew at a lease that changes hands quickly.
const leaseAttempts = 5

// newestLease gives the highest epoch of a lease, 0 when it was never held.
func (m *Meta) newestLease(ctx context.Context, what string) (int64, error) {
	var newest int64
	err := m.leaseObjects(ctx, what, func(_ string, epoch int64, beat bool) {
		if !beat {
			newest = max(newest, epoch)
		}
	})
	return newest, err
}

func (m *Meta) leaseObjects(ctx context.Context, what string, fn func(name string, epoch int64, beat bool)) error {
	err := m.storage.List(ctx, leasePrefix(what), func(i blob.Info) error {
		digits, beat := strings.CutSuffix(strings.TrimPrefix(i.Name, leasePrefix(what)), beatSuffix)
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
			fn(i.Name, n, beat)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for lease %s: %w", what, notAbsent(err))
	}
	return nil
}

// awaitSilence returns nil when the lease was released, or when its holder was silent for its TTL.
func (m *Meta) awaitSilence(ctx context.Context, what string, epoch int64, sameHost bool) error {
	held := leaseRecord{Host: "unknown", At: m.now()}
	signed, err := m.getSigned(ctx, "lease", leaseName(what, epoch), &held)
	if errors.Is(err, errRevoked) { // it stops by itself as soon as it notices
		err = signed.decode(&held)
		held.TTL = trustAge
	}
	if unreadable(err) {
		// A damaged or forged lease must not hold for ever. Nobody knows its TTL: the longest there is will do.
		m.log.WarnContext(ctx, "a lease cannot be read; it is waited out", "lease", what, "err", err)
		held, err = leaseRecord{Host: "unknown", At: m.now(), TTL: longestTTL}, nil
	}
	if err != nil {
		return fmt.Errorf("read lease %s: %w", what, err)
	}
	if sameHost && m.keys.Host() != recoverySigner && signed.Signer == m.keys.Host() && held.Host == m.keys.Host() {
		return nil
	}
	first, err := m.readBeat(ctx, what, epoch)
	if err != nil || first.Released {
		return err
	}
	wait := held.TTL + held.TTL/8
	for since := m.now(); m.now().Sub(since) < wait; {
		if err := m.o.Sleep(ctx, min(max(held.TTL/8, time.Millisecond), lookEvery)); err != nil {
			return fmt.Errorf("wait for lease %s of host %s: %w", what, held.Host, err)
		}
		next, err := m.readBeat(ctx, what, epoch)
		if err != nil {
			return err
		}
		if next.Released {
			return nil
		}
		if next.Beat != first.Beat && next.Beat >= 0 {
			return heldError(what, held)
		}
	}
	return nil
}

// longestTTL is no shorter than any lease's.
const longestTTL = 5 * time.Minute

func unreadable(err error) bool { return errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) }

// readBeat reads a heartbeat; a holder that has not yet beaten is at beat 0, one whose heartbeat cannot be read at -1: if he lives,
// his next one can.
func (m *Meta) readBeat(ctx context.Context, what string, epoch int64) (leaseBeat, error) {
	var b leaseBeat
	_, err := m.getSigned(ctx, "beat", beatName(what, epoch), &b)
	if errors.Is(err, blob.ErrNotFound) {
		return leaseBeat{Epoch: epoch}, nil
	}
	if unreadable(err) {
		m.log.WarnContext(ctx, "a heartbeat cannot be read", "lease", what, "err", err)
		return leaseBeat{Epoch: epoch, Beat: -1}, nil
	}
	if err != nil {
		return b, fmt.Errorf("read heartbeat of lease %s: %w", what, err)
	}
	return b, nil
}

// heldBy is ErrLeaseHeld with the name of who holds it.
type heldBy struct {
	host  string
	since time.Time
}

// Error says who holds the lease.
func (e heldBy) Error() string {
	return fmt.Sprintf("%s by host %s since %s", ErrLeaseHeld, e.host, e.since.Format(time.RFC3339))
}

// Unwrap gives ErrLeaseHeld.
func (heldBy) Unwrap() error { return ErrLeaseHeld }

// Holder is the host that err names as the holder of a lease; "" when err tells of none.
func Holder(err error) string {
	var held heldBy
	_ = errors.As(err, &held)
	return held.host
}

func heldError(what string, held leaseRecord) error {
	return &relight.Error{
		Op: "acquire lease", Subject: what, Code: relight.CodeLeaseHeld,
		Err:  heldBy{host: held.Host, since: held.At},
		Hint: "wait for it to finish; when its host is dead the lease ends by itself within " + held.TTL.String(),
	}
}

func (m *Meta) takeLease(ctx context.Context, what string, epoch int64, ttl time.Duration) (*Lease, error) {
	nonce, err := randomHex(m.rand, 8)
	if err != nil {
		return nil, err
	}
	before := m.now()
	r := leaseRecord{What: what, Epoch: epoch, Host: m.keys.host, TTL: ttl, At: before.UTC().Round(0), Nonce: nonce}
	err = m.putSigned(ctx, "lease", leaseName(what, epoch), r, sealedMeta)
	if errors.Is(err, blob.ErrExists) {
		return nil, m.holderOf(ctx, what, epoch)
	}
	if err != nil {
		return nil, fmt.Errorf("acquire lease %s: %w", what, err)
	}
	// Whoever was slow may have created an epoch that was held, left and cleared away long ago: it counts
	// only if it is the newest.
	newest := epoch
	var former []string
	err = m.leaseObjects(ctx, what, func(name string, e int64, beat bool) {
		if !beat {
			newest = max(newest, e)
		}
		if e < epoch {
			former = append(former, name)
		}
	})
	if err != nil {
		return nil, err
	}
	if newest != epoch {
		m.removeQuietly(ctx, leaseName(what, epoch))
		return nil, m.holderOf(ctx, what, newest)
	}
	for _, name := range former { // the newest always stays, so no epoch is ever given twice
		m.removeQuietly(ctx, name)
	}
	return &Lease{m: m, what: what, epoch: epoch, ttl: ttl, last: before}, nil
}

// holderOf names the holder of an epoch as far as it can be read.
func (m *Meta) holderOf(ctx context.Context, what string, epoch int64) error {
	held := leaseRecord{Host: "unknown", At: m.now()}
	_, err := m.getSigned(ctx, "lease", leaseName(what, epoch), &held)
	if err != nil && !errors.Is(err, blob.ErrNotFound) && !unreadable(err) {
		return fmt.Errorf("read lease %s: %w", what, err)
	}
	return heldError(what, held)
}

// Epoch is the fencing epoch: it grows with every holder.
func (l *Lease) Epoch() int64 { return l.epoch }

// Renew beats. After an error that wraps ErrLeaseHeld the lease is lost for ever; after another error it
// stands until its TTL has passed, and Renew may be called again.
func (l *Lease) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return l.lostError("it was lost before")
	}
	before := l.m.now()
	if err := l.put(ctx, leaseBeat{Epoch: l.epoch, Beat: l.beat + 1, At: before.UTC().Round(0)}); err != nil {
		return l.orExpired(err)
	}
	l.beat++
	newest, err := l.m.newestLease(ctx, l.what)
	if err != nil {
		return l.orExpired(err)
	}
	if newest != l.epoch {
		return l.lostError(fmt.Sprintf("epoch %d took over from %d", newest, l.epoch))
	}
	if l.expired() {
		return l.lostError("its TTL passed before it was renewed")
	}
	l.last = before
	return nil
}

func (l *Lease) put(ctx context.Context, b leaseBeat) error {
	name := beatName(l.what, l.epoch)
	if err := l.m.maySign(ctx, name); err != nil {
		return err
	}
	signed, err := l.m.keys.sign("beat", name, l.m.now(), b)
	if err != nil {
		return err
	}
	body, err := l.m.keys.sealBytes(signed, sealedMeta)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	if err := l.m.storage.Put(ctx, name, bytes.NewReader(body), blob.PutOptions{Replace: true}); err != nil {
		return fmt.Errorf("renew lease %s: %w", l.what, err)
	}
	return nil
}

// Valid says whether nobody can have taken over yet, by this host's clock alone.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost && !l.expired()
}

// Check is an error, as of Renew, once somebody else may have taken over.
func (l *Lease) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost || l.expired() {
		return l.lostError("it was not renewed in time")
	}
	return nil
}

func (l *Lease) expired() bool { return l.m.now().Sub(l.last) >= l.ttl }

func (l *Lease) orExpired(err error) error {
	if l.expired() {
		return l.lostError(err.Error())
	}
	return err
}

func (l *Lease) lostError(why string) error {
	l.lost = true
	return &relight.Error{
		Op: "renew lease", Subject: l.what, Code: relight.CodeLeaseHeld,
		Err:  fmt.Errorf("%w by somebody else: %s", ErrLeaseHeld, why),
		Hint: "stop what was done under it and look who holds it now",
	}
}

// Release ends the lease at once, so that the next need not wait. Releasing what was lost does nothing.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return nil
	}
	l.lost = true
	l.beat++
	return l.put(ctx, leaseBeat{Epoch: l.epoch, Beat: l.beat, Released: true, At: l.m.now().UTC().Round(0)})
}
