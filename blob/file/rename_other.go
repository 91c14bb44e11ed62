//go:build !linux

package file

import "errors"

func renameNoReplace(_, _ string) error { return errors.ErrUnsupported }

func unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
