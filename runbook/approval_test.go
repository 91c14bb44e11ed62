package runbook_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crypto/sha512"

	"golang.org/x/crypto/ssh"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/runbook"
)

// sshsig signs as OpenSSH's PROTOCOL.sshsig says, independently of the code under test.
func sshsig(t *testing.T, s ssh.Signer, namespace string, text []byte) string {
	t.Helper()
	sum := sha512.Sum512(text)
	body := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{namespace, "", "sha512", string(sum[:])})...)
	sig, err := s.Sign(rand.Reader, body)
	if as, ok := s.(ssh.AlgorithmSigner); ok && s.PublicKey().Type() == ssh.KeyAlgoRSA {
		sig, err = as.SignWithAlgorithm(rand.Reader, body, ssh.KeyAlgoRSASHA512)
	}
	if err != nil {
		t.Fatal(err)
	}
	blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
		Version                                       uint32
		Key, Namespace, Reserved, Hash, SignatureBlob string
	}{1, string(s.PublicKey().Marshal()), namespace, "", "sha512", string(ssh.Marshal(sig))})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: blob}))
}

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func approver(name string, s ssh.Signer) runbook.Approver {
	return runbook.Approver{Name: name, Key: s.PublicKey()}
}

func TestVerifyApproval(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	bob, eve := signer(t), signer(t)
	list := []runbook.Approver{approver("bob", bob), approver("rosa", old)}
	text := runbook.ApprovalText("r1", "abc", "step", runbook.Approve)
	for _, c := range []struct {
		name, sig, who, fault string
		text                  []byte
	}{
		{"ed25519", sshsig(t, bob, "relight", text), "bob", "", text},
		{"rsa", sshsig(t, old, "relight", text), "rosa", "", text},
		{"stranger", sshsig(t, eve, "relight", text), "", "not enrolled", text},
		{"other namespace", sshsig(t, bob, "git", text), "", `namespace "git"`, text},
		{"other step", sshsig(t, bob, "relight", text), "", "not a signature of this", runbook.ApprovalText("r1", "abc", "other", runbook.Approve)},
		{"other decision", sshsig(t, bob, "relight", text), "", "not a signature of this", runbook.ApprovalText("r1", "abc", "step", runbook.Refuse)},
		{"other plan", sshsig(t, bob, "relight", text), "", "not a signature of this", runbook.ApprovalText("r1", "abd", "step", runbook.Approve)},
		{"other run", sshsig(t, bob, "relight", text), "", "not a signature of this", runbook.ApprovalText("r2", "abc", "step", runbook.Approve)},
		{"no signature", "LGTM", "", "not an SSH signature", text},
		{"damaged", flip(t, sshsig(t, bob, "relight", text)), "", "", text},
	} {
		a, err := runbook.VerifyApproval(list, c.text, c.sig)
		if c.who != "" && (err != nil || a.Name != c.who) {
			t.Errorf("%s: %v, %v", c.name, a.Name, err)
		}
		if c.who == "" && (err == nil || !strings.Contains(err.Error(), c.fault) || relight.HintOf(err) == "") {
			t.Errorf("%s: accepted as %q, or with another error: %v", c.name, a.Name, err)
		}
	}
}

func flip(t *testing.T, sig string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(sig))
	block.Bytes[len(block.Bytes)-3] ^= 1
	return string(pem.EncodeToMemory(block))
}

// TestStockSSHKeygenSigns uses the program that approvers have. Where it is not installed, the vector below, which it
// has written, stands for it.
func TestStockSSHKeygenSigns(t *testing.T) {
	t.Parallel()
	vector := func(name string) string {
		b, err := os.ReadFile(filepath.Join("testdata", "approval", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	list, err := runbook.ReadApprovers(strings.NewReader(vector("allowed_signers")))
	if err != nil {
		t.Fatal(err)
	}
	text := runbook.ApprovalText("r-20260301T120000Z-abcdef", strings.Repeat("0f", 32), "restore", runbook.Approve)
	if a, err := runbook.VerifyApproval(list, text, vector("approval.sig")); err != nil || a.Name != "carol" {
		t.Errorf("the vector gives %q, %v", a.Name, err)
	}

	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Log("ssh-keygen is not installed: only the vector was verified")
		return
	}
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "approval")
	command := func(args ...string) {
		if out, err := exec.Command(keygen, args...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
		}
	}
	command("-q", "-t", "ed25519", "-N", "", "-C", "dora", "-f", key)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	command("-Y", "sign", "-n", runbook.ApprovalNamespace, "-f", key, file)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	list, err = runbook.ReadApprovers(strings.NewReader("dora@example.org namespaces=\"git,relight\" " + string(public)))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := runbook.VerifyApproval(list, text, string(sig)); err != nil || a.Name != "dora@example.org" {
		t.Errorf("a fresh signature gives %q, %v", a.Name, err)
	}
}

func TestReadApprovers(t *testing.T) {
	t.Parallel()
	key := "ssh-ed25519 " + base64.StdEncoding.EncodeToString(signer(t).PublicKey().Marshal())
	for _, c := range []struct {
		text  string
		names string
		fault string
	}{
		{"# people\n\nbob " + key + "\nalice,al@x.org namespaces=\"relight\" " + key + "\n", "bob alice", ""},
		{"git namespaces=\"git\" " + key, "", ""},
		{"bob valid-before=\"20200101\" " + key, "", "line 1: option"},
		{"bob cert-authority " + key, "", "line 1: option"},
		{"bob", "", "line 1: it has no key"},
		{"bob ssh-ed25519 AAAA", "", "line 1: read the key"},
	} {
		list, err := runbook.ReadApprovers(strings.NewReader(c.text))
		var names []string
		for _, a := range list {
			names = append(names, a.Name)
		}
		if strings.Join(names, " ") != c.names || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q gives %v, %v", c.text, names, err)
		}
	}
}

func TestApprovalStep(t *testing.T) {
	t.Parallel()
	bob, alice := signer(t), signer(t)
	people := func(signedOnly bool) func(*runbook.Config) {
		return func(c *runbook.Config) {
			c.Approvers, c.SignedOnly = []runbook.Approver{approver("bob", bob), approver("alice", alice)}, signedOnly
		}
	}
	src := source(step("Approve", `{id: ok, ask: {text: May we, approval: true, other: true}}`), step("A", `{id: a, do: fake.plain, with: {key: a}}`))
	for _, c := range []struct {
		name       string
		by         ssh.Signer
		actor      string
		signedOnly bool
		decision   string
		otherPlan  bool
		fault      string // of the answer
		code       relight.Code
		asserted   bool
	}{
		{name: "signed by another", by: bob, decision: runbook.Approve},
		{name: "signed by the starter", by: alice, decision: runbook.Approve, fault: "somebody else"},
		{name: "claimed to be another, signed by the starter", by: alice, actor: "bob", decision: runbook.Approve, fault: "somebody else"},
		{name: "asserted", actor: "bob", decision: runbook.Approve, asserted: true},
		{name: "asserted by the starter", actor: "alice", decision: runbook.Approve, fault: "somebody else"},
		{name: "asserted where only signatures count", actor: "bob", signedOnly: true, decision: runbook.Approve, fault: "only signed"},
		{name: "refused", by: bob, decision: runbook.Refuse, code: relight.CodeAborted},
		{name: "no decision", actor: "bob", decision: "maybe", fault: "no decision"},
		{name: "signed for another plan", by: bob, decision: runbook.Approve, otherPlan: true, fault: "not a signature of this"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(), &mortal{store: &store{}}
			e := engine(t, w, log, runbook.Nobody{}, people(c.signedOnly))
			st, err := e.Start(ctx, compile(t, w, src), opts())
			wantCode(t, err, relight.CodeWaiting)
			plan := st.Waiting()[0].PlanHash
			if plan == "" || plan != st.PlanHash {
				t.Fatalf("the question is for plan %q", plan)
			}
			a := runbook.Answer{Actor: c.actor, Decision: c.decision}
			if c.otherPlan {
				plan = strings.Repeat("0", 64)
			}
			if c.by != nil {
				a.Signature = sshsig(t, c.by, "relight", runbook.ApprovalText("r1", plan, "ok", c.decision))
			}
			_, err = e.Answer(ctx, "r1", "ok", a)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("the answer gives %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			st, err = e.Resume(ctx, "r1", open())
			wantCode(t, err, c.code)
			got := st.Step("ok").Answer
			if c.code == "" && (got.Asserted != c.asserted || (got.Key == "") != c.asserted || got.Actor != "bob" || w.effects["a"] != 1) {
				t.Errorf("answer %+v, effects %v", got, w.effects)
			}
		})
	}
}

func TestApprovalHoldsForItsPlanOnly(t *testing.T) {
	t.Parallel()
	w, log := newWorld(), &mortal{store: &store{}}
	src := source(step("Approve", `{id: ok, ask: {text: May we, approval: true}}`), step("A", `{id: a, do: fake.plain, with: {key: a}}`))
	e := engine(t, w, log, runbook.Nobody{})
	if _, err := e.Start(ctx, compile(t, w, src), opts()); relight.CodeOf(err) != relight.CodeWaiting {
		t.Fatal(err)
	}
	if _, err := e.Answer(ctx, "r1", "ok", runbook.Answer{Actor: "bob", Decision: runbook.Approve}); err != nil {
		t.Fatal(err)
	}
	edit := runbook.Override{Kind: runbook.EventEdit, Step: "a", Actor: "eve", Reason: "why not", Inputs: map[string]any{"key": "other"}}
	if _, err := e.Override(ctx, "r1", edit); err != nil {
		t.Fatal(err)
	}
	_, err := e.Resume(ctx, "r1", open())
	wantCode(t, err, relight.CodePlanChanged)
	if len(w.effects) > 0 {
		t.Errorf("effects %v", w.effects)
	}
	if _, err := e.Answer(ctx, "r1", "ok", runbook.Answer{Actor: "bob", Decision: runbook.Approve}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Resume(ctx, "r1", open())
	wantCode(t, err, "")
	if fmt.Sprint(w.effects) != "map[other:1]" {
		t.Errorf("effects %v", w.effects)
	}
}
