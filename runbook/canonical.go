package runbook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// Canonical is the JSON that Hash digests: fixed key order, no insignificant space, no positions.
func (rb *Runbook) Canonical() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(rb); err != nil {
		return nil, fmt.Errorf("write runbook %s: %w", rb.Name, err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// seal computes the hash.
func (rb *Runbook) seal() error {
	raw, err := rb.Canonical()
	if err != nil {
		return err
	}
	sum := blake3.Sum256(raw)
	rb.Hash = hex.EncodeToString(sum[:])
	return nil
}

// Load reads what Canonical wrote; the hash is computed from what was read, never taken on trust.
func Load(raw []byte) (*Runbook, error) {
	rb := &Runbook{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(rb); err != nil {
		return nil, fmt.Errorf("read compiled runbook: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read compiled runbook: something follows it")
	}
	if err := rb.whole(); err != nil {
		return nil, fmt.Errorf("read compiled runbook %s: %w", rb.Name, err)
	}
	return rb, rb.seal()
}

// whole checks what the engine takes for granted.
func (rb *Runbook) whole() error {
	if rb.Name == "" {
		return errors.New("it has no name")
	}
	seen := map[string]bool{}
	for _, p := range rb.Phases {
		for _, s := range p.Steps {
			if s == nil || s.ID == "" || seen[s.ID] {
				return fmt.Errorf("phase %s: a step has no id of its own", p.ID)
			}
			seen[s.ID] = true
			if !s.whole() {
				return fmt.Errorf("step %s is not a whole %s", s.ID, s.Kind)
			}
		}
	}
	return nil
}

func (s *Step) whole() bool {
	bodies := map[Kind]bool{
		KindDo: s.Do != nil, KindRun: s.Run != nil, KindAsk: s.Ask != nil,
		KindChoose: s.Choose != nil, KindWait: s.Wait != nil,
	}
	for kind, there := range bodies {
		if there != (kind == s.Kind) {
			return false
		}
	}
	return bodies[s.Kind]
}
