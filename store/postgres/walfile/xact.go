package walfile

import "encoding/binary"

// What a commit or abort record carries, in this order (xact.h).
const (
	hasDatabase  = 1 << 0
	hasSubxacts  = 1 << 1
	hasRelations = 1 << 2
	hasInvals    = 1 << 3
	hasTwoPhase  = 1 << 4
	hasStats     = 1 << 8
)

// cursor reads fields off a record and remembers that it ran out.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.short, c.b = true, nil
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// list passes a counted array of items.
func (c *cursor) list(item int) []byte { return c.take(c.count() * item) }

// count is the length of an array; items are at least four bytes long.
func (c *cursor) count() int {
	n := int(int32(c.u32()))
	if n < 0 || n > len(c.b)/4 {
		c.short = true
		return 0
	}
	return n
}

func (c *cursor) err() error {
	if c.short {
		return errShort
	}
	return nil
}

func (c *cursor) relations() []Relation {
	n := c.count()
	var list []Relation
	for range n {
		r := Relation{Tablespace: c.u32(), Database: c.u32(), Number: c.u32()}
		if c.short {
			return nil
		}
		list = append(list, r)
	}
	return list
}

func decodeXact(e *Event, info uint8, d []byte) error {
	op := info & xactMask
	commit := op == xactCommit || op == xactCommitPrepared
	e.Kind = Abort
	if commit {
		e.Kind = Commit
	}
	c := &cursor{b: d}
	e.Time = Time(int64(c.u64()))
	if info&xactHasInfo == 0 {
		return c.err()
	}
	has := c.u32()
	if has&hasDatabase != 0 {
		c.take(8)
	}
	if has&hasSubxacts != 0 {
		c.list(4)
	}
	if has&hasRelations != 0 {
		e.Dropped = c.relations()
	}
	if has&hasStats != 0 {
		c.list(12)
	}
	if commit && has&hasInvals != 0 {
		c.list(16)
	}
	if has&hasTwoPhase != 0 {
		e.XID = c.u32() // the record itself is written under no transaction
	}
	return c.err()
}

func decodeTruncate(e *Event, d []byte) error {
	c := &cursor{b: d}
	e.Kind, e.Blocks = Truncate, c.u32()
	e.Dropped = []Relation{{Tablespace: c.u32(), Database: c.u32(), Number: c.u32()}}
	return c.err()
}

func decodeDropDatabase(e *Event, d []byte) error {
	c := &cursor{b: d}
	e.Kind, e.Database = DropDatabase, c.u32()
	return c.err()
}
