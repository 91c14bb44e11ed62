package repo

import (
	"context"
	"errors"
	"io"
)

const (
	pagedBlock = 256 << 10 // read at once; a multiple of both page sizes
	lentBlock  = 4 << 20   // lent at once: it lies together in one pack, so that a restore fetches it with few requests
)

// addPaged stores a file that is cut at fixed lengths. Where another slot is free, it works on a part of the same file meanwhile: the last
// big file of a backup must not leave processors idle.
func (w *Writer) addPaged(ctx context.Context, s *slot, src io.Reader) (size int64, err error) {
	var q partQueue
	defer func() { err = errors.Join(err, q.drain(ctx, s)) }()
	for {
		worker, length := s, pagedBlock
		if size >= lentBlock { // a small file is not worth it
			if free := w.freeSlot(); free != nil {
				worker, length = free, lentBlock
			}
		}
		worker.room(length)
		n, rerr := io.ReadFull(src, worker.in[:length])
		plain := worker.in[:n]
		size += int64(n)
		p := q.push()
		if worker == s {
			p.err = w.storePages(ctx, s, plain, p)
		} else {
			p.done = make(chan struct{})
			go func() {
				defer close(p.done)
				p.err = w.storePages(ctx, worker, plain, p)
				w.slots <- worker
			}()
		}
		if rerr != nil && !errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return size, rerr
		}
		if err := q.settle(ctx, s); err != nil || rerr != nil {
			return size, err
		}
		if err := w.alive(ctx); err != nil {
			return size, err
		}
	}
}

// freeSlot takes a slot that nobody uses; nil when there is none.
func (w *Writer) freeSlot() *slot {
	select {
	case s := <-w.slots:
		return s
	default:
		return nil
	}
}

func (w *Writer) storePages(ctx context.Context, s *slot, plain []byte, p *part) error {
	for len(plain) > 0 {
		n := min(len(plain), w.page)
		id, err := w.put(ctx, s, plain[:n])
		if err != nil {
			return err
		}
		p.ids = append(p.ids, id)
		plain = plain[n:]
	}
	return nil
}

// part is some chunks of a file that follow one another.
type part struct {
	ids  []ChunkID
	err  error
	done chan struct{} // nil when it was not lent
}

func (p *part) ready() bool {
	if p.done == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

const maxParts = 1 << 12 // bounds what waits for a slow one, by ids alone: the bytes are packed already

// partQueue puts the ids of parts that end in any order into the file's map in the right one.
type partQueue []*part

func (q *partQueue) push() *part {
	p := &part{}
	*q = append(*q, p)
	return p
}

// settle takes in what is ready.
func (q *partQueue) settle(ctx context.Context, s *slot) error {
	for len(*q) > 0 && ((*q)[0].ready() || len(*q) > maxParts) {
		if err := q.first(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// drain waits for all, also after an error: nothing that was lent works on when the file is given back.
func (q *partQueue) drain(ctx context.Context, s *slot) error {
	var errs []error
	for len(*q) > 0 {
		errs = append(errs, q.first(ctx, s))
	}
	return errors.Join(errs...)
}

// first waits for the first part.
func (q *partQueue) first(ctx context.Context, s *slot) error {
	p := (*q)[0]
	*q = (*q)[1:]
	if p.done != nil {
		<-p.done
	}
	if p.err != nil {
		return p.err
	}
	for _, id := range p.ids {
		if err := s.maps.add(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
