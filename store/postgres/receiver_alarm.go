package postgres

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// alarm is a fault that has begun; it is raised when it has lasted.
type alarm struct {
	since  time.Time
	text   string
	raised bool
}

// trouble notes a fault of one source; at is how long it may last before people hear of it.
func (r *Receiver) trouble(source, text string, at time.Duration) {
	now := r.now()
	r.mu.Lock()
	a := r.alarms[source]
	if a == nil {
		a = &alarm{since: now}
		r.alarms[source] = a
	}
	a.text = text
	raise := !a.raised && now.Sub(a.since) >= at
	a.raised = a.raised || raise
	r.mu.Unlock()
	if raise {
		r.tape.touch()
		r.send(Notice{Kind: NoticeAlarm, Repository: repositoryOf(source), Message: source + ": " + text})
	}
}

// well ends a source's fault.
func (r *Receiver) well(source string) {
	r.mu.Lock()
	a := r.alarms[source]
	delete(r.alarms, source)
	r.mu.Unlock()
	if a != nil && a.raised {
		r.tape.touch()
		r.send(Notice{Kind: NoticeCleared, Repository: repositoryOf(source), Message: source})
	}
}

const repositorySource = "repository "

// laneSource names a lane of a repository in alarms: that one lane works does not say that the other does.
func laneSource(repository, lane string) string {
	return repositorySource + repository + " (" + lane + ")"
}

func repositoryOf(source string) string {
	name, ok := strings.CutPrefix(source, repositorySource)
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, " (")
	return name
}

// alarmText joins what has been raised.
func (r *Receiver) alarmText() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for source, a := range r.alarms {
		if a.raised {
			list = append(list, fmt.Sprintf("%s: %s (since %s)", source, a.text, a.since.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// send passes a notice on, one at a time.
func (r *Receiver) send(n Notice) {
	level := r.log.Warn
	if n.Kind == NoticeCleared || n.Kind == NoticeTimeline {
		level = r.log.Info
	}
	level(n.Message, "kind", n.Kind)
	if r.o.Notify == nil {
		return
	}
	r.notify.Lock()
	defer r.notify.Unlock()
	r.o.Notify(n)
}
