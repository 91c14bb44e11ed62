package relight

import (
	"errors"
	"strings"
)

// Code classes an error; the command line turns it into an exit code.
type Code string

// The codes, and the exit code of each.
const (
	CodeFailed       Code = "failed"       // 1
	CodeNotFound     Code = "not_found"    // 1
	CodeUsage        Code = "usage"        // 2: usage or configuration
	CodeObjective    Code = "objective"    // 3: recovered, objective missed
	CodeWaiting      Code = "waiting"      // 4: waiting for a person, nothing changed
	CodeAborted      Code = "aborted"      // 5
	CodeVerification Code = "verification" // 6: verification failed
	CodePlanChanged  Code = "plan_changed" // 7: the plan changed since approval
	CodeLeaseHeld    Code = "lease_held"   // 8
)

// Exit is the exit code of the process that ends with c.
func (c Code) Exit() int {
	switch c {
	case "":
		return 0
	case CodeUsage:
		return 2
	case CodeObjective:
		return 3
	case CodeWaiting:
		return 4
	case CodeAborted:
		return 5
	case CodeVerification:
		return 6
	case CodePlanChanged:
		return 7
	case CodeLeaseHeld:
		return 8
	default:
		return 1
	}
}

// Error is an operation that failed, on what, and what to do next.
type Error struct {
	Op      string // what was being done: "restore postgres"
	Subject string // on what: "store main"
	Code    Code
	Err     error
	Hint    string // what to do next; one sentence, lowercase, no period
}

// Error joins operation, subject and cause; the hint is printed on its own line by the edge.
func (e *Error) Error() string {
	var parts []string
	head := strings.TrimSpace(e.Op + " " + e.Subject)
	if head != "" {
		parts = append(parts, head)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf finds the outermost code in err's chain; "" for nil, CodeFailed where none is given.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	for errors.As(err, &e) {
		if e.Code != "" {
			return e.Code
		}
		err = e.Err
	}
	return CodeFailed
}

// HintOf finds the outermost hint in err's chain.
func HintOf(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// Told is err and its hint in one text, for a cell or a line that holds both; "" for nil.
func Told(err error) string {
	if err == nil {
		return ""
	}
	if hint := HintOf(err); hint != "" {
		return err.Error() + "; " + hint
	}
	return err.Error()
}
