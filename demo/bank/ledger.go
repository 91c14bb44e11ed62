package bank

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Transfer is one movement of money.
type Transfer struct {
	ID           string    `json:"id"`
	Debit        int       `json:"debit"`
	Credit       int       `json:"credit"`
	Amount       int64     `json:"amount"`
	Acknowledged time.Time `json:"acknowledged,omitzero"` // this host's clock, just after the server said "committed"
}

// Ledger keeps acknowledged transfers in a file outside the database, one JSON line each.
type Ledger struct {
	now func() time.Time

	mu    sync.Mutex
	file  *os.File
	count int
}

// OpenLedger makes an empty ledger at path.
func OpenLedger(path string, now func() time.Time) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return &Ledger{now: now, file: f}, nil
}

// Add keeps a transfer that was acknowledged just now.
func (l *Ledger) Add(t Transfer) error {
	t.Acknowledged = l.now()
	line, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("keep transfer: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep transfer: %w", err)
	}
	l.count++
	return nil
}

// Count is how many transfers were acknowledged so far.
func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Close makes the ledger durable.
func (l *Ledger) Close() error {
	return errors.Join(l.file.Sync(), l.file.Close())
}

// ReadLedger reads the transfers at path, in the order of acknowledgement.
func ReadLedger(path string) ([]Transfer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer func() { _ = f.Close() }()
	var out []Transfer
	dec := json.NewDecoder(bufio.NewReader(f))
	for {
		var t Transfer
		err := dec.Decode(&t)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read ledger: line %d: %w", len(out)+1, err)
		}
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b Transfer) int { return a.Acknowledged.Compare(b.Acknowledged) })
	return out, nil
}
