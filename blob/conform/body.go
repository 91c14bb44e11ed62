package conform

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/toolboxai/relight/blob"
)

func put(ctx context.Context, p place, name string, data []byte) error {
	return p.Put(ctx, name, bytes.NewReader(data), blob.PutOptions{})
}

// read gets a range and reads it to its end.
func read(ctx context.Context, s blob.Storage, name string, offset, length int64) ([]byte, error) {
	rc, err := s.Get(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rc)
	return data, errors.Join(err, rc.Close())
}

// same compares a whole object with what it should hold.
func same(ctx context.Context, p place, name string, want []byte) error {
	got, err := read(ctx, p, name, 0, -1)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("read back %d bytes that differ from the %d stored", len(got), len(want))
	}
	return nil
}

// must turns an answer other than the wanted error into a finding.
func must(err, want error, doing string) error {
	if errors.Is(err, want) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s: no error, expected %q", doing, want)
	}
	return fmt.Errorf("%s: expected %q, got: %w", doing, want, err)
}

func listed(ctx context.Context, s blob.Storage, prefix string) ([]string, error) {
	var names []string
	err := s.List(ctx, prefix, func(i blob.Info) error {
		names = append(names, i.Name)
		return nil
	})
	return names, err
}

// pattern is size bytes that differ at every place and for every seed, so that a shifted, truncated or mixed object
// shows. It can be read in any order without being held in memory.
type pattern struct {
	seed uint64
	size int64
	at   int64
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	p.fill(b[:n])
	p.at += int64(n)
	return n, nil
}

// fill writes the bytes from p.at on: whole words, but for the first and the last.
func (p *pattern) fill(b []byte) {
	var word [8]byte
	for at := p.at; len(b) > 0; {
		binary.LittleEndian.PutUint64(word[:], p.word(at>>3))
		n := copy(b, word[at&7:])
		at += int64(n)
		b = b[n:]
	}
}

// word mixes its number as splitmix64 does.
func (p *pattern) word(number int64) uint64 {
	x := p.seed + uint64(number)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (p *pattern) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.at
	case io.SeekEnd:
		offset += p.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	p.at = offset
	return offset, nil
}

func bytesOf(seed uint64, size int64) []byte {
	data := make([]byte, size)
	(&pattern{seed: seed, size: size}).fill(data)
	return data
}
