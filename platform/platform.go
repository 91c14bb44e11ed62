// Package platform is where services run: the port through which relight starts, stops and looks at the estate's services.
//
// A platform promises that Stop returns only when nothing of the service runs any more, that Start never makes a second copy, and that
// State tells what is so now, not what was asked for.
package platform

import (
	"context"
	"time"

	"github.com/toolboxai/relight"
)

// Status of a service, in the words that `relight service list` prints.
type Status string

// The states.
const (
	Healthy   Status = "Up (healthy)"
	Unhealthy Status = "Up (unhealthy)" // runs, and its readiness command fails
	Up        Status = "Up"             // runs, and has no readiness command
	Exited    Status = "Exited"
	Absent    Status = "Absent" // was never started here
)

// Running says whether a process of the service is there.
func (s Status) Running() bool { return s == Healthy || s == Unhealthy || s == Up }

// Ready says whether the service is as good as it can be known to be.
func (s Status) Ready() bool { return s == Healthy || s == Up }

// State of a service.
type State struct {
	Service string         `json:"service"`
	Status  Status         `json:"status"`
	Detail  string         `json:"detail,omitempty"`
	Handle  relight.Handle `json:"handle,omitzero"`
	Since   time.Time      `json:"since,omitzero"`
}

// Platform runs services. Unknown names are errors of code usage.
type Platform interface {
	// Start starts the service unless it runs. started is called with the handle before the service does anything.
	Start(ctx context.Context, service string, started func(context.Context, relight.Handle) error) (relight.Handle, error)
	// Stop asks the service to end, insists after its grace, and returns when it is gone. A service that is not running is no error.
	Stop(ctx context.Context, service string) error
	State(ctx context.Context, service string) (State, error)
}
