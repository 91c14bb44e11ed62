package runbook

import (
	"bufio"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/toolboxai/relight"
)

// ApprovalNamespace is what an approval is signed under: ssh-keygen -Y sign -n relight -f KEY FILE.
const ApprovalNamespace = "relight"

// Approver is a person and the key that speaks for them. Different keys are different people.
type Approver struct {
	Name string
	Key  ssh.PublicKey
}

// ApprovalText is what is signed: run, plan, step and decision, one a line. An approval of a runbook itself, rather than
// of a step of a run, has an empty run and step, and the runbook's hash as plan.
func ApprovalText(run relight.RunID, planHash, step, decision string) []byte {
	return fmt.Appendf(nil, "relight approval v1\nrun: %s\nplan: %s\nstep: %s\ndecision: %s\n", run, planHash, step, decision)
}

// ReadApprovers reads the lines of an OpenSSH allowed_signers file: principals, optional options, key. A line whose
// options restrict it to other namespaces is passed over.
func ReadApprovers(r io.Reader) ([]Approver, error) {
	var list []Approver
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, ok, err := readApprover(line)
		if err != nil {
			return nil, usage("read approvers", fmt.Sprintf("line %d", n), err, "a line reads: alice@example.org ssh-ed25519 AAAA…")
		}
		if ok {
			list = append(list, a)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read approvers: %w", err)
	}
	return list, nil
}

func readApprover(line string) (Approver, bool, error) {
	principals, rest, ok := strings.Cut(line, " ")
	if !ok {
		return Approver{}, false, errors.New("it has no key")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return Approver{}, false, fmt.Errorf("read the key: %w", err)
	}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch strings.ToLower(name) {
		case "namespaces":
			if !slices.Contains(strings.Split(strings.Trim(value, `"`), ","), ApprovalNamespace) {
				return Approver{}, false, nil
			}
		default: // cert-authority, valid-after, …: to ignore a restriction would be to widen it
			return Approver{}, false, fmt.Errorf("option %q is not supported", name)
		}
	}
	name, _, _ := strings.Cut(principals, ",")
	return Approver{Name: strings.Trim(name, `"`), Key: key}, true, nil
}

// VerifyApproval finds who signed text. The signature is what ssh-keygen -Y sign writes.
func VerifyApproval(approvers []Approver, text []byte, armored string) (Approver, error) {
	key, err := verifySSHSig(text, armored)
	if err != nil {
		return Approver{}, &relight.Error{
			Op: "verify the signature", Code: relight.CodeUsage, Err: err,
			Hint: "sign with: ssh-keygen -Y sign -n " + ApprovalNamespace + " -f KEY FILE",
		}
	}
	for _, a := range approvers {
		if string(a.Key.Marshal()) == string(key.Marshal()) {
			return a, nil
		}
	}
	return Approver{}, &relight.Error{
		Op: "verify the signature", Subject: ssh.FingerprintSHA256(key), Code: relight.CodeUsage,
		Err: errors.New("this key is not enrolled"), Hint: "enrol it in the approvers file, on a line such as: alice " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
	}
}

const sigMagic = "SSHSIG"

// sigBlob is the body of an SSH signature file after its magic; sigBody is what the key signs, after the same magic.
// Source: PROTOCOL.sshsig of OpenSSH.
type sigBlob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

type sigBody struct {
	Namespace string
	Reserved  []byte
	Hash      string
	Digest    []byte
}

func verifySSHSig(text []byte, armored string) (ssh.PublicKey, error) {
	block, _ := pem.Decode([]byte(armored))
	if block == nil || block.Type != "SSH SIGNATURE" {
		return nil, errors.New("it is not an SSH signature")
	}
	body, ok := strings.CutPrefix(string(block.Bytes), sigMagic)
	if !ok {
		return nil, errors.New("it is not an SSH signature")
	}
	var blob sigBlob
	if err := ssh.Unmarshal([]byte(body), &blob); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if blob.Version != 1 {
		return nil, fmt.Errorf("its version is %d, not 1", blob.Version)
	}
	if blob.Namespace != ApprovalNamespace {
		return nil, fmt.Errorf("it is for namespace %q, not %q", blob.Namespace, ApprovalNamespace)
	}
	return verifyBlob(blob, text)
}

func verifyBlob(blob sigBlob, text []byte) (ssh.PublicKey, error) {
	hashes := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}
	newHash, ok := hashes[blob.Hash]
	if !ok {
		return nil, fmt.Errorf("its hash %q is neither sha256 nor sha512", blob.Hash)
	}
	key, err := ssh.ParsePublicKey(blob.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("read its key: %w", err)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(blob.Signature, &sig); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if sig.Format == ssh.KeyAlgoRSA {
		return nil, errors.New("it is an RSA signature with SHA-1")
	}
	h := newHash()
	h.Write(text)
	signed := append([]byte(sigMagic), ssh.Marshal(sigBody{blob.Namespace, blob.Reserved, blob.Hash, h.Sum(nil)})...)
	if err := key.Verify(signed, &sig); err != nil {
		return nil, errors.New("it is not a signature of this run, plan, step and decision")
	}
	return key, nil
}

// checkAnswer verifies what a person said before it is recorded. Without a signature the name is only asserted, and the
// record says so.
func (e *Engine) checkAnswer(q Question, starter string, a Answer) (Answer, error) {
	a.Asserted, a.Key, a.PlanHash = true, "", q.PlanHash
	if q.Kind == AskApprove {
		if a.Decision != Approve && a.Decision != Refuse {
			return a, usage("approve", "step "+q.Step, fmt.Errorf("%q is no decision", a.Decision), "say approve or refuse")
		}
		if err := e.signed(q, &a); err != nil {
			return a, err
		}
	}
	if q.Other && a.Decision != Refuse && e.same(a, starter) {
		return a, &relight.Error{
			Op: "approve", Subject: "step " + q.Step, Code: relight.CodeWaiting,
			Err: fmt.Errorf("%s started the run; somebody else must answer", starter), Hint: "have another person sign with an enrolled key",
		}
	}
	return a, nil
}

func (e *Engine) signed(q Question, a *Answer) error {
	if a.Signature == "" {
		if e.c.SignedOnly {
			return &relight.Error{
				Op: "approve", Subject: "step " + q.Step, Code: relight.CodeWaiting, Err: errors.New("only signed approvals are accepted here"),
				Hint: "sign with: ssh-keygen -Y sign -n " + ApprovalNamespace + " -f KEY FILE",
			}
		}
		return nil
	}
	who, err := VerifyApproval(e.c.Approvers, ApprovalText(q.Run, q.PlanHash, q.Step, a.Decision), a.Signature)
	if err != nil {
		return err
	}
	a.Actor, a.Asserted, a.Key = who.Name, false, ssh.FingerprintSHA256(who.Key)
	return nil
}

// same says whether the answer comes from the person who started the run: by name, or by any key enrolled for that name.
func (e *Engine) same(a Answer, starter string) bool {
	if a.Actor == starter {
		return true
	}
	return a.Key != "" && slices.ContainsFunc(e.c.Approvers, func(x Approver) bool {
		return x.Name == starter && ssh.FingerprintSHA256(x.Key) == a.Key
	})
}
