package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/toolboxai/relight"
)

// ErrShutdown is the end of a stream because the server stops.
var ErrShutdown = errors.New("server ended the stream")

// Kind of a message.
type Kind uint8

// The kinds of message.
const (
	Data      Kind = iota + 1 // WAL bytes
	Keepalive                 // position only
	Ended                     // the timeline is complete; Next and At say how it goes on
)

// Message of a stream. Data is valid until the next Receive.
type Message struct {
	Kind  Kind
	Start relight.LSN // of Data
	Bytes []byte
	Sent  relight.LSN // keepalive: how far the server has sent, which is not how far it has written
	Clock time.Time   // the server's, when it sent
	Reply bool        // the server wants a status update now
	Next  relight.TimelineID
	At    relight.LSN
}

// Start begins to stream at lsn on timeline tl, without a slot. When that timeline ends exactly there, the server
// does not stream at all: the returned message then says how it goes on; otherwise it is nil.
func (c *Conn) Start(ctx context.Context, lsn relight.LSN, tl relight.TimelineID) (*Message, error) {
	defer c.watch(ctx)()
	command := fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", lsn, tl)
	if err := c.query(command); err != nil {
		return nil, contextual(ctx, command, err)
	}
	var failure error
	var next *Message
	for {
		m, err := c.front.Receive()
		if err != nil {
			return nil, contextual(ctx, command, err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil, nil
		case *pgproto3.DataRow:
			next, err = switchRow(m)
			failure = errors.Join(failure, err)
		case *pgproto3.ErrorResponse:
			failure = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if failure == nil && next == nil {
				failure = ErrShutdown
			}
			return next, wrap(command, failure)
		}
	}
}

// Receive waits for the next message of the stream. It does not watch ctx by itself: the caller holds Guard.
func (c *Conn) Receive() (Message, error) {
	for {
		m, err := c.front.Receive()
		if err != nil {
			return Message{}, fmt.Errorf("receive WAL: %w", err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			return parse(m.Data)
		case *pgproto3.CopyDone:
			return c.finish()
		case *pgproto3.ErrorResponse:
			return Message{}, fmt.Errorf("receive WAL: %w", pgconn.ErrorResponseToPgError(m))
		}
	}
}

// Guard breaks Receive and Status when ctx ends, until the returned function is called.
func (c *Conn) Guard(ctx context.Context) func() { return c.watch(ctx) }

func parse(b []byte) (Message, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		return Message{Kind: Data, Start: lsn(b[1:]), Bytes: b[25:], Clock: clock(b[17:])}, nil
	case len(b) >= 18 && b[0] == 'k':
		return Message{Kind: Keepalive, Sent: lsn(b[1:]), Clock: clock(b[9:]), Reply: b[17] != 0}, nil
	case len(b) == 0:
		return Message{}, errors.New("receive WAL: empty message")
	}
	return Message{}, fmt.Errorf("receive WAL: unknown message %q of %d bytes", b[0], len(b))
}

// finish ends the copy after the server did and reads how WAL goes on.
func (c *Conn) finish() (Message, error) {
	c.write.Lock()
	defer c.write.Unlock()
	if err := c.send(&pgproto3.CopyDone{}); err != nil {
		return Message{}, ErrShutdown
	}
	var next *Message
	for {
		m, err := c.front.Receive()
		if err != nil {
			return Message{}, errors.Join(ErrShutdown, err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			if next, err = switchRow(m); err != nil {
				return Message{}, err
			}
		case *pgproto3.ErrorResponse:
			return Message{}, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if next == nil {
				return Message{}, ErrShutdown
			}
			return *next, nil
		}
	}
}

func switchRow(m *pgproto3.DataRow) (*Message, error) {
	row := texts(m)
	if len(row) < 2 {
		return nil, fmt.Errorf("timeline switch has %d columns, not 2", len(row))
	}
	tl, err := strconv.ParseUint(row[0], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("timeline switch: %w", err)
	}
	at, err := relight.ParseLSN(row[1])
	return &Message{Kind: Ended, Next: relight.TimelineID(tl), At: at}, err
}

// Status tells the server how far WAL is written, flushed and applied. Each is sent as given: a zero stays a zero, so that
// nothing is taken for durable or applied that is not. It may run while another goroutine receives.
func (c *Conn) Status(write, flush, apply relight.LSN) error {
	b := make([]byte, 0, 34)
	b = append(b, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(write))
	b = binary.BigEndian.AppendUint64(b, uint64(flush))
	b = binary.BigEndian.AppendUint64(b, uint64(apply))
	b = binary.BigEndian.AppendUint64(b, uint64(c.now().UnixMicro()-epochMicros))
	b = append(b, 0)
	c.write.Lock()
	defer c.write.Unlock()
	return wrap("send status", c.send(&pgproto3.CopyData{Data: b}))
}

// send writes past the frontend's buffer, which belongs to the receiving goroutine.
func (c *Conn) send(m pgproto3.FrontendMessage) error {
	b, err := m.Encode(nil)
	if err != nil {
		return err
	}
	_, err = c.conn.Write(b)
	return err
}

// epochMicros is 2000-01-01 in Unix microseconds.
const epochMicros = 946684800 * 1_000_000

func lsn(b []byte) relight.LSN { return relight.LSN(binary.BigEndian.Uint64(b)) }

func clock(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b)) + epochMicros).UTC()
}
