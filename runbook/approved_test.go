package runbook_test

import (
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// Every way in which a runbook may stand before a real run, and what the run then says.
func TestGate(t *testing.T) {
	t.Parallel()
	w := newWorld()
	old := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: a}}`)))
	now := compile(t, w, source(step("A", `{id: a, do: fake.plain, with: {key: b}}`)))
	bob, eve := signer(t), signer(t)
	g := runbook.Gate{Approvers: []runbook.Approver{approver("bob", bob)}}
	decide := func(g runbook.Gate, rb *runbook.Runbook, decision, signature string) runbook.Decided {
		t.Helper()
		d, err := g.Decide(rb, runbook.Answer{Actor: "alice", Decision: decision, Signature: signature}, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	text := func(rb *runbook.Runbook, decision string) []byte {
		return runbook.ApprovalText("", rb.Hash, "", decision)
	}
	asserted := decide(g, now, runbook.Approve, "")
	signed := decide(g, now, runbook.Approve, sshsig(t, bob, "relight", text(now, runbook.Approve)))
	refused := decide(g, now, runbook.Refuse, "")
	former := decide(g, old, runbook.Approve, "")
	forged := signed
	forged.Actor = "carol"
	turned := signed
	turned.Decision = runbook.Refuse // the signature is for the other decision
	if !asserted.Asserted || asserted.Actor != "alice" || signed.Asserted || signed.Actor != "bob" || signed.Key == "" {
		t.Fatalf("%+v\n%+v", asserted, signed)
	}
	for name, c := range map[string]struct {
		gate runbook.Gate
		code relight.Code
	}{
		"never approved":                    {runbook.Gate{}, relight.CodeWaiting},
		"built in":                          {runbook.Gate{BuiltIn: []string{now.Hash}, SignedOnly: true}, ""},
		"asserted":                          {runbook.Gate{Decided: []runbook.Decided{asserted}}, ""},
		"signed":                            {runbook.Gate{Decided: []runbook.Decided{signed}, Approvers: g.Approvers, SignedOnly: true}, ""},
		"another version":                   {runbook.Gate{Decided: []runbook.Decided{former}}, relight.CodePlanChanged},
		"both versions":                     {runbook.Gate{Decided: []runbook.Decided{asserted, former}}, ""},
		"taken back":                        {runbook.Gate{Decided: []runbook.Decided{asserted, refused}}, relight.CodeWaiting},
		"approved again":                    {runbook.Gate{Decided: []runbook.Decided{refused, asserted}}, ""},
		"asserted, and that is not enough":  {runbook.Gate{Decided: []runbook.Decided{asserted}, SignedOnly: true}, relight.CodeWaiting},
		"another version, asserted in vain": {runbook.Gate{Decided: []runbook.Decided{former}, SignedOnly: true}, relight.CodeWaiting},
		"signed by whom nobody knows now":   {runbook.Gate{Decided: []runbook.Decided{signed}, Approvers: []runbook.Approver{approver("eve", eve)}}, relight.CodeWaiting},
		"signed in another's name":          {runbook.Gate{Decided: []runbook.Decided{forged}, Approvers: g.Approvers}, relight.CodeWaiting},
		"signature of the other decision":   {runbook.Gate{Decided: []runbook.Decided{turned}, Approvers: g.Approvers}, relight.CodeWaiting},
	} {
		err := c.gate.Check(now, "own")
		if relight.CodeOf(err) != c.code || err != nil && relight.HintOf(err) == "" {
			t.Errorf("%s: %v: code %q, not %q", name, err, relight.CodeOf(err), c.code)
		}
	}
	if _, err := g.Decide(now, runbook.Answer{Actor: "alice", Decision: runbook.Approve, Signature: sshsig(t, eve, "relight", text(now, runbook.Approve))}, time.Unix(1, 0)); err == nil {
		t.Error("a stranger's signature is taken")
	}
	if _, err := g.Decide(now, runbook.Answer{Actor: "alice", Decision: runbook.Approve, Signature: sshsig(t, bob, "relight", text(old, runbook.Approve))}, time.Unix(1, 0)); err == nil {
		t.Error("a signature for another version is taken")
	}
}
