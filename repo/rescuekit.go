package repo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// KitFact is a line of the rescue kit that only the estate knows: where credentials are kept, the hotline.
type KitFact struct{ Label, Value string }

// RescueKit prints what to keep offline, and how to recover with it. It holds no secret.
func (m *Meta) RescueKit(ctx context.Context, w io.Writer, facts ...KitFact) error {
	k := kit{m: m}
	if err := k.gather(ctx); err != nil {
		return fmt.Errorf("write the rescue kit: %w", err)
	}
	var b strings.Builder
	k.where(&b, facts)
	k.who(&b)
	k.how(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

type kit struct {
	m          *Meta
	recipients []Recipient
	tested     KeyTested
	wasTested  bool
	stores     []string
	servers    map[string]int // newest server_version_num by store
}

func (k *kit) gather(ctx context.Context) error {
	var err error
	if k.recipients, err = k.m.Recipients(ctx); err != nil {
		return err
	}
	if k.tested, k.wasTested, err = k.m.LastKeyTest(ctx); err != nil {
		return err
	}
	if k.stores, err = k.m.Stores(ctx); err != nil {
		return err
	}
	k.servers = map[string]int{}
	for _, store := range k.stores {
		err := k.m.Sidecars(ctx, store, func(_ WALKey, s Sidecar, _ bool) error {
			k.servers[store] = max(k.servers[store], s.Version)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) where(b *strings.Builder, facts []KitFact) {
	d := k.m.desc
	fmt.Fprintf(b, "RELIGHT RESCUE KIT — keep this page offline, with the recovery identity\n")
	fmt.Fprintf(b, "Printed %s\n\n", k.m.now().UTC().Format(time.RFC3339))
	line := func(label, format string, a ...any) { fmt.Fprintf(b, "  %-24s %s\n", label, fmt.Sprintf(format, a...)) }
	fmt.Fprintf(b, "1. Where\n")
	line("repository", "%s", k.m.storage)
	line("name in the estate", "%s", k.m.name)
	line("id", "%s", d.ID)
	line("fingerprint", "%s   (compare: a forged repository has another one)", d.Fingerprint())
	if b, err := json.Marshal(d); err == nil {
		line("descriptor", "%s   (relight.json, should it be lost)", b)
	}
	line("format", "%d, made %s", d.Format, d.Created.Format("2006-01-02"))
	if d.SingleHost {
		line("single host", "yes: the protected host can read its own backups")
	}
	for _, s := range k.stores {
		if v := k.servers[s]; v > 0 {
			line("store "+s, "PostgreSQL %d (last seen %d.%d): recovery needs the binaries of this major version", v/10000, v/10000, v%10000)
		} else {
			line("store "+s, "server version not recorded")
		}
	}
	for _, f := range facts {
		line(f.Label, "%s", f.Value)
	}
}

func (k *kit) who(b *strings.Builder) {
	fmt.Fprintf(b, "\n2. Keys: any one of these recovery identities opens everything\n")
	for _, r := range k.recipients {
		kind := "X25519"
		if r.PostQuantum() {
			kind = "post-quantum hybrid"
		}
		text := r.text
		if len(text) > 80 {
			text = text[:64] + "…"
		}
		fmt.Fprintf(b, "  %s  %-20s %s\n", recipientID(k.m.desc.ID, r), kind, text)
	}
	switch {
	case !k.wasTested:
		fmt.Fprintf(b, "  NEVER TESTED. Run: relight repo key-test --repo %s --identity FILE\n", k.m.storage)
	case !k.tested.Covers(k.m.newestEpoch):
		fmt.Fprintf(b, "  Last tested %s, before key epoch %d was opened. Test again.\n", k.tested.At.Format(time.RFC3339), k.m.newestEpoch)
	default:
		fmt.Fprintf(b, "  Last tested %s, with %s.\n", k.tested.At.Format(time.RFC3339), strings.Join(k.tested.Recipients, ", "))
	}
}

func (k *kit) how(b *strings.Builder) {
	fmt.Fprintf(b, `
3. Recover
  On any Linux machine with the relight binary, the storage's credentials and the identity file:
    relight recover --repo %s --identity FILE
  It needs no configuration, no journal and no other host.

4. Without relight
  The format is public (docs/format.md) and made of standard parts. tools/rescue/rescue.py needs Python and
  the programs age, zstd and b3sum:
    python3 rescue.py --help
  By hand, every key: age -d -i FILE keys/epoch/1/… prints the identities of an epoch; with them,
    age -d -i DATA-IDENTITY PACK | zstd -d
  prints the content of a pack, and the same on a WAL body prints the segment.
`, k.m.storage)
}

// Fingerprint is what an operator compares with the rescue kit.
func (m *Meta) Fingerprint() string { return m.desc.Fingerprint() }
