package journal

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/toolboxai/relight"
)

// Anchor is a signed head, kept out of reach of whoever holds this host.
type Anchor struct {
	Format  int    `json:"format"`
	Journal string `json:"journal"`
	Host    string `json:"host"`
	Seq     int64  `json:"seq"`
	Hash    Hash   `json:"hash"`
	At      string `json:"at"` // RFC 3339, UTC; signed as it stands
	Signer  string `json:"signer"`
	Sig     []byte `json:"sig"`
}

// Anchor signs the present head. An empty journal has a head too: number 0.
func (j *Journal) Anchor(ctx context.Context) (Anchor, error) {
	tx, err := j.read.BeginTx(ctx, nil)
	if err != nil {
		return Anchor{}, explain("anchor journal", j.path, err)
	}
	defer func() { _ = tx.Rollback() }()
	h, err := head(ctx, tx, j.id, j.o.Host)
	if err == nil {
		err = j.recognise(ctx, tx, h)
	}
	if err != nil {
		return Anchor{}, explain("anchor journal", j.path, err)
	}
	j.sighted(h)
	a := Anchor{Format: format, Journal: j.id, Host: j.o.Host, Seq: h.Seq, Hash: h.Hash,
		At: j.o.Now().UTC().Format(time.RFC3339Nano), Signer: j.signer}
	a.Sig = ed25519.Sign(j.o.Signer, a.message())
	return a, nil
}

func (a Anchor) message() []byte {
	return []byte("relight/1\x00journal-anchor\x00" + a.Journal + "/" + strconv.FormatInt(a.Seq, 10) +
		"\x00" + a.Hash.String() + "\x00" + a.At)
}

// Key is a public key that is trusted to have signed for a host.
type Key struct {
	Host   string
	Public ed25519.PublicKey
}

// Trust is what a verification starts from; none of it may come from the journal itself.
type Trust struct {
	Keys    []Key
	Anchors []Anchor // from the repositories
	// Elsewhere names journals that Anchors mention and that the caller verifies apart, such as the one that the host had
	// before it was lost. Without it a missing journal is a finding.
	Elsewhere []string
}

var (
	errUnknownKey = errors.New("signed by a key that is not trusted for this host")
	errSignature  = errors.New("the signature does not match")
)

func (t Trust) check(host, signer string, message, sig []byte) error {
	for _, k := range t.Keys {
		if k.Host != host || len(k.Public) != ed25519.PublicKeySize || Fingerprint(k.Public) != signer {
			continue
		}
		if ed25519.Verify(k.Public, message, sig) {
			return nil
		}
		return errSignature
	}
	return errUnknownKey
}

// Finding is one thing that is not as it must be.
type Finding struct {
	Seq    int64  `json:"seq"`
	Detail string `json:"detail"`
}

// Report is the outcome of a verification.
type Report struct {
	Journal  string    `json:"journal"`
	Host     string    `json:"host"`
	Events   int64     `json:"events"`
	First    int64     `json:"first"`
	Head     Head      `json:"head"`
	Anchored int64     `json:"anchored"` // the highest number that an anchor confirms; what follows could be cut off unseen
	Began    time.Time `json:"began,omitzero"`
	Latest   time.Time `json:"latest,omitzero"`
	Findings []Finding `json:"findings,omitempty"` // at most maxFindings
	Found    int64     `json:"found"`              // how many there were
	Notes    []string  `json:"notes,omitempty"`    // what is worth knowing and no finding
}

const maxFindings = 100

func (r *Report) find(seq int64, form string, args ...any) {
	r.Found++
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{Seq: seq, Detail: fmt.Sprintf(form, args...)})
	}
}

func (r *Report) note(form string, args ...any) {
	if len(r.Notes) < maxFindings {
		r.Notes = append(r.Notes, fmt.Sprintf(form, args...))
	}
}

// OK says that nothing was found.
func (r *Report) OK() bool { return r.Found == 0 }

// Err is nil when nothing was found, else an error of code verification that names the first finding.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	f := r.Findings[0]
	return &relight.Error{Op: "verify journal", Subject: r.Journal + " of " + r.Host, Code: relight.CodeVerification,
		Err:  fmt.Errorf("event %d: %s (%d findings)", f.Seq, f.Detail, r.Found),
		Hint: "keep the file as evidence and compare it with the segments in the repositories"}
}
