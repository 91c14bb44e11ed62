package postgres

import (
	"errors"
	"io"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a server says while it cannot be asked, by PostgreSQL's table of error codes.
const (
	crashShutdown    = "57P02"
	cannotConnectNow = "57P03"
)

// Starting tells whether a server that refused or ended a connection will take the next ones: one of its processes crashed, and it replays, or it starts.
func Starting(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code == crashShutdown || said.Code == cannotConnectNow
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// notThere tells whether nobody answered at all, or a server that is Starting.
func notThere(err error) bool {
	var said *pgconn.PgError
	var unanswered *pgconn.ConnectError
	return Starting(err) || errors.As(err, &unanswered) && !errors.As(err, &said)
}
