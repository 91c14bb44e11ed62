package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// timelineHistory is what a history file says: where each ancestor was left.
type timelineHistory struct {
	object   string
	timeline relight.TimelineID
	left     map[relight.TimelineID]relight.LSN
	begin    relight.LSN // where the last ancestor was left
}

type timelineHistories []timelineHistory

// begin is where a timeline branched off its parent.
func (hs timelineHistories) begin(t relight.TimelineID) (relight.LSN, bool) {
	for _, h := range hs {
		if h.timeline == t {
			return h.begin, true
		}
	}
	return 0, false
}

func (q walQuery) histories(ctx context.Context) (timelineHistories, error) {
	all, err := q.m.Histories(ctx, q.Store)
	if err != nil {
		return nil, err
	}
	var out timelineHistories
	for _, h := range all {
		if h.System != q.System {
			continue
		}
		object := h.Sidecar.Body
		left, begin, err := parseHistory(h.Data)
		if err != nil {
			return nil, corrupt(object, "%v", err)
		}
		out = append(out, timelineHistory{object: object, timeline: h.Timeline, left: left, begin: begin})
	}
	return out, nil
}

// parseHistory reads PostgreSQL's history file: a line for each ancestor, "timeline LSN reason".
func parseHistory(b []byte) (map[relight.TimelineID]relight.LSN, relight.LSN, error) {
	left := map[relight.TimelineID]relight.LSN{}
	var begin relight.LSN
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 {
			return nil, 0, fmt.Errorf("history line %.40q has no position", sc.Text())
		}
		t, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, 0, fmt.Errorf("history line %.40q has no timeline", sc.Text())
		}
		if begin, err = relight.ParseLSN(f[1]); err != nil {
			return nil, 0, err
		}
		left[relight.TimelineID(t)] = begin
	}
	return left, begin, sc.Err()
}

// readHistory writes a timeline's history file to w.
func (m *Meta) readHistory(ctx context.Context, k WALKey, name string, w io.Writer) error {
	t, ok := parseUpperHex(strings.TrimSuffix(name, ".history"), 8)
	if !ok {
		return fmt.Errorf("%s: %w: no repository holds files of such a name", name, blob.ErrNotFound)
	}
	k.Timeline = relight.TimelineID(t)
	sc, err := m.sidecar(ctx, walName{WALKey: k, class: walHistory, name: name})
	if errors.Is(err, blob.ErrNotFound) {
		return m.noHistory(ctx, k, name)
	}
	if err != nil {
		return err
	}
	return m.copyBody(ctx, sc, sealedMeta, w)
}

// noHistory proves that a timeline does not exist: its history is written before its first WAL, so WAL
// without a history is a history that was lost, and recovery would follow the wrong line.
func (m *Meta) noHistory(ctx context.Context, k WALKey, name string) error {
	l, err := m.listWAL(ctx, k.prefix())
	if err != nil {
		return err
	}
	if k.Timeline > 1 && len(l.sidecars) > 0 {
		return corrupt(k.prefix()+name, "it is missing although WAL of its timeline is there (%s)", l.sidecars[0].sidecar())
	}
	return fmt.Errorf("%s of store %s: %w in repository %s", name, k.Store, blob.ErrNotFound, m.name)
}
