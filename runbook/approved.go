package runbook

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/toolboxai/relight"
)

// EventRunbookDecided is a person's decision about a runbook, in the journal; its data is a Decided.
const EventRunbookDecided = "runbook.decided"

// Decided is what a person has decided about one version of a runbook: real runs may execute it, or may no longer. It holds for the hash, and so for every word
// that an operator would read.
type Decided struct {
	Runbook   string    `json:"runbook"`
	Hash      string    `json:"hash"`
	Decision  string    `json:"decision"` // Approve or Refuse
	Actor     string    `json:"actor"`
	Asserted  bool      `json:"asserted,omitempty"`  // nobody signed: the name is only a claim
	Key       string    `json:"key,omitempty"`       // fingerprint of the key that signed
	Signature string    `json:"signature,omitempty"` // over ApprovalText("", hash, "", decision)
	At        time.Time `json:"at"`
}

// Gate decides which runbooks real runs may execute.
type Gate struct {
	BuiltIn    []string // hashes that came with this release, which approves them
	Decided    []Decided
	Approvers  []Approver
	SignedOnly bool // an approval that is only asserted does not count
}

// Standing says whether a version of a runbook may run, and by whose word.
type Standing struct {
	Approved bool      `json:"approved"`
	BuiltIn  bool      `json:"built_in,omitempty"`
	Changed  bool      `json:"changed,omitempty"` // another version of it was approved
	Asserted bool      `json:"asserted,omitempty"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at,omitzero"`
	Why      string    `json:"why,omitempty"` // there is a decision, and it is no approval that counts
}

// String is the standing in a few words.
func (s Standing) String() string {
	switch {
	case s.BuiltIn:
		return "built in"
	case s.Approved && s.Asserted:
		return "by " + s.By + " (asserted)"
	case s.Approved:
		return "by " + s.By + " (signed)"
	case s.Changed:
		return "NO: changed since"
	default:
		return "NO"
	}
}

// Decide makes the record of what a person said about a runbook. A signature must be of an enrolled key; without one the name is only asserted.
func (g Gate) Decide(rb *Runbook, a Answer, at time.Time) (Decided, error) {
	d := Decided{Runbook: rb.Name, Hash: rb.Hash, Decision: a.Decision, Actor: a.Actor, Asserted: a.Signature == "", Signature: a.Signature, At: at.UTC()}
	if d.Decision != Approve && d.Decision != Refuse {
		return d, usage("approve", "runbook "+rb.Name, fmt.Errorf("%q is no decision", d.Decision), "say approve or refuse")
	}
	if d.Asserted && g.SignedOnly {
		return d, &relight.Error{Op: "approve", Subject: "runbook " + rb.Name, Code: relight.CodeWaiting, Err: errors.New("only signed approvals are accepted here"),
			Hint: fmt.Sprintf("relight runbook approve %s --text | ssh-keygen -Y sign -n %s -f KEY > approval.sig, then --signature approval.sig", rb.Name, ApprovalNamespace)}
	}
	if d.Asserted {
		return d, nil
	}
	who, err := VerifyApproval(g.Approvers, ApprovalText("", d.Hash, "", d.Decision), d.Signature)
	if err != nil {
		return d, err
	}
	d.Actor, d.Key = who.Name, ssh.FingerprintSHA256(who.Key)
	return d, nil
}

// Standing looks a runbook up. The newest decision about its hash counts; a signature is verified each time, so that a line which somebody wrote into the record
// speaks for nobody else.
func (g Gate) Standing(rb *Runbook) Standing {
	if slices.Contains(g.BuiltIn, rb.Hash) {
		return Standing{Approved: true, BuiltIn: true}
	}
	st := Standing{Changed: slices.ContainsFunc(g.Decided, func(d Decided) bool {
		return d.Runbook == rb.Name && d.Hash != rb.Hash && d.Decision == Approve && g.counts(d) == nil
	})}
	for _, d := range slices.Backward(g.Decided) {
		if d.Hash != rb.Hash {
			continue
		}
		st.By, st.At, st.Asserted = d.Actor, d.At, d.Signature == ""
		switch err := g.counts(d); {
		case err != nil:
			st.Why = "the approval by " + d.Actor + " does not count: " + err.Error()
		case d.Decision != Approve:
			st.Changed, st.Why = false, d.Actor+" has refused it"
		default:
			st.Approved, st.Changed = true, false
		}
		return st
	}
	return st
}

func (g Gate) counts(d Decided) error {
	if d.Signature == "" {
		if g.SignedOnly {
			return errors.New("it is only asserted, and only signed ones are accepted here")
		}
		return nil
	}
	who, err := VerifyApproval(g.Approvers, ApprovalText("", d.Hash, "", d.Decision), d.Signature)
	if err == nil && who.Name != d.Actor {
		err = fmt.Errorf("the key is that of %s", who.Name)
	}
	return err
}

// Check refuses a runbook that may not run in earnest; name is how the user calls it: with CodePlanChanged when it was approved in another version, with CodeWaiting when it never was.
func (g Gate) Check(rb *Runbook, name string) error {
	st := g.Standing(rb)
	if st.Approved {
		return nil
	}
	e := &relight.Error{Op: "start", Subject: "runbook " + rb.Name, Code: relight.CodeWaiting, Err: errors.New("it was never approved"),
		Hint: fmt.Sprintf("read it (relight runbook show %s), then relight runbook approve %s; a dry run needs no approval", name, name)}
	switch {
	case st.Why != "":
		e.Err = errors.New(st.Why)
	case st.Changed:
		e.Code, e.Err = relight.CodePlanChanged, errors.New("it has changed since it was approved")
	}
	return e
}
