package estate

import (
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Synchronous says that commits wait for relight. Every choice is the operator's: none has a default.
type Synchronous struct {
	Repository   bool          // they wait for every repository; else for the spool
	Degrade      bool          // a receiver that does not answer is waited for no longer; else commits wait
	DegradeAfter time.Duration // with Degrade: for so long they wait
	SpoolOutside string        // with the spool: how it survives the loss of the server
}

type syncFile struct {
	Acknowledge  string `yaml:"acknowledge"`
	WhenDead     string `yaml:"when_receiver_dies"`
	DegradeAfter string `yaml:"degrade_after"`
	SpoolOutside string `yaml:"spool_survives_because"`
}

// leastDegrade is the least time that a receiver has: below it, an ordinary slow disk would end synchronous mode again and again.
const leastDegrade = time.Second

func (r *resolver) synchronous(at string, in *syncFile) *Synchronous {
	if in == nil {
		return nil
	}
	out := &Synchronous{SpoolOutside: strings.TrimSpace(in.SpoolOutside)}
	r.choice(at+".acknowledge", in.Acknowledge, "spool", "repository", "it has no default: a commit is safe once the spool holds it, or once every repository does")
	r.choice(at+".when_receiver_dies", in.WhenDead, "block", "degrade", "it has no default: commits then wait until relight is back, or are released after degrade_after, on record")
	out.Repository, out.Degrade = in.Acknowledge == "repository", in.WhenDead == "degrade"
	switch {
	case in.Acknowledge == "spool" && out.SpoolOutside == "":
		r.failf("%s.spool_survives_because: missing; state how the spool survives the loss of the server and its data, or choose acknowledge: repository", at)
	case out.Repository && out.SpoolOutside != "":
		r.failf("%s.spool_survives_because: the repository acknowledges, so nothing hangs on the spool; leave it out", at)
	}
	switch {
	case out.Degrade && in.DegradeAfter == "":
		r.failf("%s.degrade_after: missing; it is how long commits wait for a receiver that does not answer, such as 30s", at)
	case in.WhenDead == "block" && in.DegradeAfter != "":
		r.failf("%s.degrade_after: commits are to block, so none is ever released; leave it out, or choose when_receiver_dies: degrade", at)
	}
	out.DegradeAfter = r.duration(at+".degrade_after", in.DegradeAfter, 0)
	if in.DegradeAfter != "" && out.Degrade && out.DegradeAfter < leastDegrade {
		r.failf("%s.degrade_after: %s is below the least, %s", at, in.DegradeAfter, leastDegrade)
	}
	return out
}

// choice demands one of two words.
func (r *resolver) choice(at, got, one, other, why string) {
	switch got {
	case one, other:
	case "":
		r.failf("%s: missing; %s or %s: %s", at, one, other, why)
	default:
		if near := relight.Nearest(got, []string{one, other}); near != "" {
			r.failf("%s: %q is neither %s nor %s (did you mean %q?)", at, got, one, other, near)
			return
		}
		r.failf("%s: %q is neither %s nor %s", at, got, one, other)
	}
}

// String is the choice in words.
func (s Synchronous) String() string {
	text := "spool"
	if s.Repository {
		text = "repository"
	}
	if s.Degrade {
		return text + ", degrade after " + s.DegradeAfter.String()
	}
	return text + ", block"
}
