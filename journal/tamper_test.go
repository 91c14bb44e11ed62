package journal_test

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/journal"
	"github.com/zeebo/blake3"
	_ "modernc.org/sqlite"
)

func execSQL(t testing.TB, path, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// adversary has the file, the specification and any amount of recomputation; key is whatever it signs with.
type adversary struct {
	t    *testing.T
	path string
	id   string
	key  ed25519.PrivateKey
}

// rechain recomputes all hashes; with a key it signs everything again.
func (a adversary) rechain() {
	a.t.Helper()
	db, err := sql.Open("sqlite", a.path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(a.t.Context(), "SELECT seq, body FROM event ORDER BY seq")
	if err != nil {
		a.t.Fatal(err)
	}
	type row struct {
		seq  int64
		body []byte
	}
	var all []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.seq, &r.body); err != nil {
			a.t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		a.t.Fatal(err)
	}
	prev := blake3.Sum256([]byte("relight/journal/1\x00" + a.id + "\x00db1"))
	for _, r := range all {
		prev = blake3.Sum256(append(prev[:], r.body...))
		if _, err := db.ExecContext(a.t.Context(), "UPDATE event SET hash = ? WHERE seq = ?", prev[:], r.seq); err != nil {
			a.t.Fatal(err)
		}
		if a.key == nil {
			continue
		}
		sig := ed25519.Sign(a.key, []byte("relight/1\x00journal-event\x00"+a.id+"/"+strconv.FormatInt(r.seq, 10)+"\x00"+fmt.Sprintf("%x", prev)))
		if _, err := db.ExecContext(a.t.Context(), "UPDATE event SET sig = ?, signer = ? WHERE seq = ?", sig,
			journal.Fingerprint(a.key.Public().(ed25519.PublicKey)), r.seq); err != nil {
			a.t.Fatal(err)
		}
	}
}

func TestAdversaryWithoutTheKeyIsFound(t *testing.T) {
	t.Parallel()
	strange := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	const renumber = `UPDATE event SET seq = seq - 1, body = CAST(replace(CAST(body AS TEXT), '"seq":'||seq||',', '"seq":'||(seq-1)||',') AS BLOB) WHERE seq > 5`
	cases := map[string]struct {
		sql     string
		rechain bool
		key     ed25519.PrivateKey
		want    string
	}{
		"nothing":               {},
		"rechained untouched":   {rechain: true}, // proves that the adversary computes what the journal computes
		"edit":                  {sql: `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), '{"n":4}', '{"n":5}') AS BLOB) WHERE seq = 5`, want: "the chain is broken"},
		"edit and rechain":      {sql: `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), '{"n":4}', '{"n":5}') AS BLOB) WHERE seq = 5`, rechain: true, want: "signature does not match"},
		"edit the actor":        {sql: `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), 'alice', 'mallo') AS BLOB) WHERE seq = 9`, rechain: true, want: "signature does not match"},
		"delete":                {sql: `DELETE FROM event WHERE seq = 5`, want: "missing"},
		"delete and renumber":   {sql: `DELETE FROM event WHERE seq = 5; ` + renumber, rechain: true, want: "signature does not match"},
		"delete the first":      {sql: `DELETE FROM event WHERE seq <= 3`, rechain: true, want: "missing"},
		"reorder":               {sql: `UPDATE event SET seq = -5 WHERE seq = 5; UPDATE event SET seq = 5 WHERE seq = 6; UPDATE event SET seq = 6 WHERE seq = -5`, want: "put in its place"},
		"reorder and rechain":   {sql: `UPDATE event SET seq = -5 WHERE seq = 5; UPDATE event SET seq = 5 WHERE seq = 6; UPDATE event SET seq = 6 WHERE seq = -5`, rechain: true, want: "put in its place"},
		"double":                {sql: `INSERT INTO event SELECT 11, run, kind, body, hash, signer, sig FROM event WHERE seq = 10`, rechain: true, want: "put in its place"},
		"cut before anchor":     {sql: `DELETE FROM event WHERE seq >= 8`, rechain: true, want: "cut off"},
		"cut everything":        {sql: `DELETE FROM event`, want: "cut off"},
		"another key":           {rechain: true, key: strange, want: "key that is not trusted"},
		"another key, edited":   {sql: `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), '{"n":4}', '{"n":5}') AS BLOB) WHERE seq = 5`, rechain: true, key: strange, want: "not trusted"},
		"claim the signer":      {sql: `UPDATE event SET sig = zeroblob(64) WHERE seq = 4`, want: "signature does not match"},
		"no signature":          {sql: `UPDATE event SET sig = x'', signer = ''`, want: "not trusted"},
		"hash cut":              {sql: `UPDATE event SET hash = x'00' WHERE seq = 4`, want: "its hash has"},
		"column lies":           {sql: `UPDATE event SET run = 'r-9' WHERE seq = 4`, want: "is listed as"},
		"doubled member":        {sql: `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), '"kind"', '"kind":"x","kind"') AS BLOB) WHERE seq = 4`, rechain: true, want: "canonical"},
		"another host":          {sql: `UPDATE journal SET host = 'db2'`, want: "is of host"},
		"another id":            {sql: `UPDATE journal SET id = '00112233445566778899aabbccddeeff'`, rechain: true, want: "is anchored up to event 10 and is not here"},
		"trigger":               {sql: `CREATE TRIGGER x AFTER INSERT ON event BEGIN DELETE FROM event; END`, want: "triggers"},
		"cut behind the anchor": {sql: `DELETE FROM event WHERE seq > 10`}, // cannot be found, and the specification says so
	}
	base, basePath := fresh(t)
	fill(t, base, 10)
	anchor, err := base.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, base, 2)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(basePath)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "journal.db")
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.sql != "" {
				if strings.HasPrefix(c.sql, "INSERT") { // make room for the double
					execSQL(t, path, "DELETE FROM event WHERE seq > 10")
				}
				execSQL(t, path, c.sql)
			}
			if c.rechain {
				adversary{t, path, base.ID(), c.key}.rechain()
			}
			r, err := journal.VerifyFile(t.Context(), path, trust(anchor))
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if !r.OK() || r.Anchored != 10 || r.Err() != nil {
					t.Fatalf("found %+v", r.Findings)
				}
				return
			}
			if r.OK() || !strings.Contains(fmt.Sprint(r.Findings), c.want) || relight.CodeOf(r.Err()) != relight.CodeVerification {
				t.Fatalf("want %q, found %+v", c.want, r.Findings)
			}
		})
	}
}

// With its key, the adversary can rewrite only what no anchor holds.
func TestAnchorsHoldEvenAgainstTheKey(t *testing.T) {
	t.Parallel()
	j, path := fresh(t)
	fill(t, j, 6)
	anchor, err := j.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, path, `UPDATE event SET body = CAST(replace(CAST(body AS TEXT), '{"n":2}', '{"n":7}') AS BLOB) WHERE seq = 3`)
	adversary{t, path, j.ID(), hostKey}.rechain()
	if r := verified(t, j, trust()); !r.OK() {
		t.Fatal("the adversary's signatures are no good:", r.Findings)
	}
	if r := verified(t, j, trust(anchor)); r.OK() || !strings.Contains(fmt.Sprint(r.Findings), "history was rewritten") {
		t.Fatalf("%+v", r)
	}
}

func TestLivingProcessRefusesToSignOverALostPast(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{"cut": "DELETE FROM event WHERE seq > 3", "changed": "UPDATE event SET hash = zeroblob(32) WHERE seq = 6"} {
		j, path := fresh(t)
		fill(t, j, 6)
		execSQL(t, path, sql)
		_, err := j.Append(t.Context(), event("r-1", "a", 0), journal.Expect{})
		if !errors.Is(err, journal.ErrTampered) || relight.CodeOf(err) != relight.CodeVerification || relight.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := j.Anchor(t.Context()); !errors.Is(err, journal.ErrTampered) {
			t.Errorf("%s: anchored %v", name, err)
		}
	}
}

func TestForgedAnchorsAndLostJournals(t *testing.T) {
	t.Parallel()
	j, _ := fresh(t)
	fill(t, j, 4)
	good, err := j.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forged := good
	forged.Seq = 2
	if r := verified(t, j, trust(forged, good)); r.OK() {
		t.Fatal("a forged anchor passed")
	}
	before, _ := fresh(t)
	fill(t, before, 9)
	lost, err := before.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tr := trust(good, lost)
	if r := verified(t, j, tr); r.OK() || !strings.Contains(r.Err().Error(), "is anchored up to event 9 and is not here") {
		t.Fatal("a replaced journal passed")
	}
	tr.Elsewhere = []string{before.ID()}
	if r := verified(t, j, tr); !r.OK() || r.Anchored != 4 {
		t.Fatal(r.Findings)
	}
}
