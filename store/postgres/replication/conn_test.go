package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/toolboxai/relight"
)

// fakeServer is the other end of a connection in replication mode.
type fakeServer struct {
	t    *testing.T
	conn net.Conn
	back *pgproto3.Backend
}

func pair(t *testing.T) (*Conn, *fakeServer) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
	c := &Conn{conn: ours, front: pgproto3.NewFrontend(ours, ours), version: 150014, now: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	return c, &fakeServer{t: t, conn: theirs, back: pgproto3.NewBackend(theirs, theirs)}
}

func (f *fakeServer) expect(sql string) {
	f.t.Helper()
	m, err := f.back.Receive()
	q, ok := m.(*pgproto3.Query)
	if err != nil || !ok || q.String != sql {
		f.t.Errorf("received %#v (%v), want %q", m, err, sql)
	}
}

func (f *fakeServer) send(ms ...pgproto3.BackendMessage) {
	f.t.Helper()
	for _, m := range ms {
		f.back.Send(m)
	}
	if err := f.back.Flush(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		f.t.Error(err)
	}
}

func row(values ...string) *pgproto3.DataRow {
	r := &pgproto3.DataRow{}
	for _, v := range values {
		r.Values = append(r.Values, []byte(v))
	}
	return r
}

var ready = &pgproto3.ReadyForQuery{TxStatus: 'I'}

func status(t *testing.T, m pgproto3.FrontendMessage) (write, flush, apply uint64) {
	t.Helper()
	d, ok := m.(*pgproto3.CopyData)
	if !ok || len(d.Data) != 34 || d.Data[0] != 'r' {
		t.Fatalf("%#v is no status update", m)
	}
	return binary.BigEndian.Uint64(d.Data[1:]), binary.BigEndian.Uint64(d.Data[9:]), binary.BigEndian.Uint64(d.Data[17:])
}

// A library that fills a zero flush or apply with the written position promises durability that nobody has.
func TestTrap11ZeroStaysZero(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	cases := [][3]relight.LSN{{0x3000, 0, 0}, {0x3000, 0x2000, 0}, {0, 0, 0}, {3, 2, 1}}
	go func() {
		for _, p := range cases {
			if err := c.Status(p[0], p[1], p[2]); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, p := range cases {
		m, err := f.back.Receive()
		if err != nil {
			t.Fatal(err)
		}
		w, fl, a := status(t, m)
		if w != uint64(p[0]) || fl != uint64(p[1]) || a != uint64(p[2]) {
			t.Errorf("sent %v, the server reads %X %X %X", p, w, fl, a)
		}
	}
}

func TestStreamToTheEndOfATimeline(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	go func() {
		f.expect("START_REPLICATION PHYSICAL 0/3000000 TIMELINE 1")
		f.send(&pgproto3.CopyBothResponse{})
		wal := append([]byte{'w'}, make([]byte, 24)...)
		binary.BigEndian.PutUint64(wal[1:], 0x3000000)
		f.send(&pgproto3.CopyData{Data: append(wal, "bytes"...)})
		alive := append([]byte{'k'}, make([]byte, 17)...)
		binary.BigEndian.PutUint64(alive[1:], 0x3000005)
		alive[17] = 1
		f.send(&pgproto3.CopyData{Data: alive}, &pgproto3.CopyDone{})
		if m, err := f.back.Receive(); err != nil {
			t.Error(err)
		} else if _, ok := m.(*pgproto3.CopyDone); !ok {
			t.Errorf("received %#v", m)
		}
		f.send(&pgproto3.RowDescription{}, row("2", "0/3000005"), &pgproto3.CommandComplete{CommandTag: []byte("SELECT")},
			&pgproto3.CommandComplete{CommandTag: []byte("START_REPLICATION")}, ready)
	}()
	if m, err := c.Start(t.Context(), 0x3000000, 1); m != nil || err != nil {
		t.Fatal(m, err)
	}
	m, err := c.Receive()
	if err != nil || m.Kind != Data || m.Start != 0x3000000 || string(m.Bytes) != "bytes" {
		t.Fatalf("%+v %v", m, err)
	}
	if m, err = c.Receive(); err != nil || m.Kind != Keepalive || !m.Reply || m.Sent != 0x3000005 {
		t.Fatalf("%+v %v", m, err)
	}
	if m, err = c.Receive(); err != nil || m.Kind != Ended || m.Next != 2 || m.At != 0x3000005 {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestATimelineThatEndsWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	go func() {
		f.expect("START_REPLICATION PHYSICAL 0/3000000 TIMELINE 1")
		f.send(&pgproto3.RowDescription{}, row("3", "0/3000000"), &pgproto3.CommandComplete{CommandTag: []byte("START_REPLICATION")}, ready)
	}()
	m, err := c.Start(t.Context(), 0x3000000, 1)
	if err != nil || m == nil || m.Next != 3 || m.At != 0x3000000 {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestAServerThatShutsDownEndsTheStream(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	go func() {
		f.expect("START_REPLICATION PHYSICAL 0/3000000 TIMELINE 1")
		f.send(&pgproto3.CopyBothResponse{}, &pgproto3.CopyDone{})
		_, _ = f.back.Receive()
		f.send(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
		_ = f.conn.Close()
	}()
	if _, err := c.Start(t.Context(), 0x3000000, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); !errors.Is(err, ErrShutdown) {
		t.Fatalf("error %v", err)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	go func() {
		f.expect("IDENTIFY_SYSTEM")
		f.send(row("7711372586987857091", "3", "0/3000148", ""), ready)
		f.expect("SHOW wal_segment_size")
		f.send(row("64MB"), ready)
		f.expect(`CREATE_REPLICATION_SLOT "relight_main" PHYSICAL RESERVE_WAL`)
		f.send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42710", Message: "it exists"}, ready)
		f.expect("TIMELINE_HISTORY 3")
		f.send(row("00000003.history", "1\t0/3000148\tno reason\n"), ready)
		f.expect("IDENTIFY_SYSTEM")
		f.send(row("1"), ready)
	}()
	sys, err := c.Identify(t.Context())
	if err != nil || sys != (System{7711372586987857091, 3, 0x3000148}) {
		t.Errorf("%+v %v", sys, err)
	}
	if n, err := c.SegmentSize(t.Context()); n != 64<<20 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if err := c.CreateSlot(t.Context(), "relight_main"); err == nil {
		t.Error("the server's error is lost")
	}
	if b, err := c.History(t.Context(), 3); string(b) != "1\t0/3000148\tno reason\n" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if _, err := c.Identify(t.Context()); err == nil {
		t.Error("accepted an answer of one column")
	}
}

func TestContextBreaksWaiting(t *testing.T) {
	t.Parallel()
	c, f := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		f.expect("IDENTIFY_SYSTEM")
		cancel()
	}()
	if _, err := c.Identify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"15.14 (Debian 15.14-0+deb12u1)": 150014, "17beta1": 170000, "16.0": 160000, "15": 150000} {
		if got, err := Version(in); got != want || err != nil {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := Version("nonsense"); err == nil {
		t.Error("accepted nonsense")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("w0123456701234567012345670bytes"))
	f.Add([]byte("k01234567012345670"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err == nil && m.Kind == Data && len(m.Bytes) != len(b)-25 {
			t.Errorf("%d bytes of %d", len(m.Bytes), len(b))
		}
	})
}
