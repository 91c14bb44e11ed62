package repo

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// spool holds a segment until it is complete: in memory, or in a temporary file when it is large.
type spool struct {
	io.Writer
	buf  *bytes.Buffer
	file *os.File
}

func (m *Meta) newSpool(size int64) (*spool, error) {
	if size <= spillAbove {
		b := bytes.NewBuffer(make([]byte, 0, size))
		return &spool{Writer: b, buf: b}, nil
	}
	f, err := m.tempFile()
	if err != nil {
		return nil, err
	}
	return &spool{Writer: f, file: f}, nil
}

func (s *spool) copyTo(w io.Writer) error {
	if s.buf != nil {
		_, err := s.buf.WriteTo(w)
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(w, s.file)
	return err
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}
