package bank

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var begun = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// clock goes on by a second whenever it is read.
func clock() func() time.Time {
	var mu sync.Mutex
	t := begun
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t = t.Add(time.Second)
		return t
	}
}

func TestLedgerThereAndBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l, err := OpenLedger(path, clock())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if err := l.Add(Bank{Accounts: 10}.pick("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if l.Count() != 200 {
		t.Fatal(l.Count())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLedger(path)
	if err != nil || len(got) != 200 {
		t.Fatal(len(got), err)
	}
	for i, tr := range got {
		if !tr.Acknowledged.Equal(begun.Add(time.Duration(i+1) * time.Second)) {
			t.Fatalf("transfer %d was acknowledged at %s", i, tr.Acknowledged)
		}
	}
	if _, err := OpenLedger(path, clock()); err == nil {
		t.Fatal("a ledger was overwritten")
	}
	if err := l.Add(Transfer{}); err == nil {
		t.Fatal("a closed ledger took a transfer")
	}
}

func TestTornLedgerIsNotBelieved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := os.WriteFile(path, []byte(`{"id":"a","debit":1,"credit":2,"amount":3}`+"\n"+`{"id":"b","deb`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadLedger(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Fatal(got, err)
	}
	if _, err := ReadLedger(path + ".none"); err == nil {
		t.Fatal("a ledger that is not there was read")
	}
}

func three() []Transfer {
	return []Transfer{{ID: "a", Debit: 1, Credit: 2, Amount: 10, Acknowledged: begun}, {ID: "b", Debit: 2, Credit: 3, Amount: 20}, {ID: "c", Debit: 3, Credit: 1, Amount: 30}}
}

func asRows(all []Transfer) map[string]Transfer {
	m := map[string]Transfer{}
	for _, t := range all {
		t.Acknowledged = time.Time{} // the database does not know it
		m[t.ID] = t
	}
	return m
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil                          func(map[string]Transfer)
		recovered, lost, altered, more int
	}{
		"whole":           {func(map[string]Transfer) {}, 3, 0, 0, 0},
		"one is lost":     {func(m map[string]Transfer) { delete(m, "b") }, 2, 1, 0, 0},
		"amount altered":  {func(m map[string]Transfer) { m["b"] = Transfer{ID: "b", Debit: 2, Credit: 3, Amount: 21} }, 2, 0, 1, 0},
		"debit altered":   {func(m map[string]Transfer) { m["b"] = Transfer{ID: "b", Debit: 1, Credit: 3, Amount: 20} }, 2, 0, 1, 0},
		"credit altered":  {func(m map[string]Transfer) { m["b"] = Transfer{ID: "b", Debit: 2, Credit: 1, Amount: 20} }, 2, 0, 1, 0},
		"not confirmed":   {func(m map[string]Transfer) { m["d"] = Transfer{ID: "d"} }, 3, 0, 0, 1},
		"all is lost":     {func(m map[string]Transfer) { clear(m) }, 0, 3, 0, 0},
		"lost for others": {func(m map[string]Transfer) { delete(m, "a"); m["d"], m["e"] = Transfer{ID: "d"}, Transfer{ID: "e"} }, 2, 1, 0, 2},
	} {
		have := asRows(three())
		c.spoil(have)
		var got Comparison
		got.match(have, three())
		if got.Recovered != c.recovered || len(got.Lost) != c.lost || len(got.Altered) != c.altered || got.Unconfirmed != c.more {
			t.Errorf("%s: %+v", name, got)
		}
		if got.Whole() != (c.lost+c.altered == 0) {
			t.Errorf("%s: whole is %v", name, got.Whole())
		}
	}
	if (Comparison{Sum: 99, WantSum: 100}).Whole() {
		t.Error("money was lost, and all is whole")
	}
}

// The first lost transfer is what the loss is measured from: what is lost keeps the order of acknowledgement.
func TestLostOnesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var ledger []Transfer
		have := map[string]Transfer{}
		var lost []string
		for i := range rapid.IntRange(0, 50).Draw(t, "transfers") {
			tr := Transfer{ID: string(rune('A' + i)), Acknowledged: begun.Add(time.Duration(i) * time.Second)}
			ledger = append(ledger, tr)
			if rapid.Bool().Draw(t, "survives") {
				have[tr.ID] = tr
			} else {
				lost = append(lost, tr.ID)
			}
		}
		var c Comparison
		c.match(have, ledger)
		var got []string
		for _, tr := range c.Lost {
			got = append(got, tr.ID)
		}
		if !slices.Equal(got, lost) || c.Recovered+len(c.Lost) != len(ledger) {
			t.Fatalf("%v, want %v", got, lost)
		}
	})
}

func TestTransfersMoveMoneyBetweenTwoAccounts(t *testing.T) {
	t.Parallel()
	b := Bank{Accounts: 2, Balance: 500}
	for range 1000 {
		tr := b.pick("x")
		if tr.Debit == tr.Credit || tr.Debit < 1 || tr.Debit > 2 || tr.Credit < 1 || tr.Credit > 2 || tr.Amount < 1 {
			t.Fatalf("%+v", tr)
		}
	}
	if b.Sum() != 1000 {
		t.Fatal(b.Sum())
	}
}
