package runbook

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/action"
)

// applyStep folds one event of a step or of an element.
func (s *State) applyStep(u *StepState, e relight.Event) error {
	switch e.Kind {
	case EventStepStarted:
		return s.stepStarted(u, e)
	case EventStepHandle, EventStepHandleEnded:
		return u.handle(e)
	case EventStepCheckpoint:
		return u.checkpoint(e)
	case EventStepProbed:
		return u.probed(e)
	case EventStepExpanded:
		return s.expand(u, e)
	case EventStepExamined:
		u.Examined, u.Status, u.Finished = &Examined{}, StepExamined, e.At
		err := read(e, u.Examined)
		u.Output = plainMap(u.Examined.Output)
		return err
	case EventStepEffected, EventStepSucceeded, EventStepFailed, EventStepSkipped:
		return s.stepEnded(u, e)
	case EventStepUndoing, EventStepUndone, EventStepUndoFailed:
		return u.undo(e)
	default:
		return u.answered(e)
	}
}

func (s *State) stepStarted(u *StepState, e relight.Event) error {
	var d StepStart
	if err := read(e, &d); err != nil {
		return err
	}
	if u.Status == StepSucceeded || u.Status == StepSkipped {
		return fmt.Errorf("the step is %s", u.Status)
	}
	u.Attempts, u.Inputs = d.Attempt, plainMap(d.Inputs)
	u.Status, u.Question, u.Error, u.Hint, u.Code = StepRunning, nil, "", "", ""
	u.Finished, u.Effected, u.Probed, u.Output = time.Time{}, false, nil, nil
	u.Began = e.At
	if u.Started.IsZero() {
		u.Started = e.At
	}
	s.Phase = u.Phase
	return nil
}

// probed: an effect that is not there is as good as one that never began; the other answers leave the question open.
func (u *StepState) probed(e relight.Event) error {
	u.Probed = &StepProbe{}
	if err := read(e, u.Probed); err != nil {
		return err
	}
	if u.Probed.State == action.NotDone && (u.Status == StepUnknown || u.Status == StepWaiting) {
		u.Status, u.Question = StepPending, nil
	}
	return nil
}

func (u *StepState) handle(e relight.Event) error {
	var h relight.Handle
	if err := read(e, &h); err != nil {
		return err
	}
	kept := u.Handles[:0:0]
	for _, old := range u.Handles {
		if old != h {
			kept = append(kept, old)
		}
	}
	if e.Kind == EventStepHandle {
		kept = append(kept, h)
	}
	u.Handles = kept
	return nil
}

func (u *StepState) checkpoint(e relight.Event) error {
	var c Checkpoint
	if err := read(e, &c); err != nil {
		return err
	}
	if u.Checkpoints == nil {
		u.Checkpoints = map[string]json.RawMessage{}
	}
	u.Checkpoints[c.Key] = c.Value
	return nil
}

func (s *State) expand(u *StepState, e relight.Event) error {
	var d Expanded
	if err := read(e, &d); err != nil {
		return err
	}
	if u.Expanded {
		return fmt.Errorf("the step is expanded already")
	}
	u.Expanded, u.Started = true, e.At
	for i, v := range d.Items {
		id := itemID(u.ID, i)
		item := &StepState{ID: id, Title: u.Title, Phase: u.Phase, Status: StepPending, Element: plainValue(v), step: u.step}
		u.Items = append(u.Items, item)
		s.index[id] = item
	}
	return nil
}

func (s *State) stepEnded(u *StepState, e relight.Event) error {
	var d StepEnd
	if err := read(e, &d); err != nil {
		return err
	}
	out, err := readOutput(d.Output)
	if err != nil {
		return err
	}
	if out != nil {
		u.Output = out
	}
	if e.Kind == EventStepEffected {
		u.Effected = true
		return nil
	}
	u.Finished, u.Question = e.At, nil
	u.By, u.Error, u.Hint, u.Code, u.Reason, u.Divert = d.By, d.Error, d.Hint, d.Code, d.Reason, d.Divert
	switch e.Kind {
	case EventStepSucceeded:
		u.Status, u.Effected, u.Handles = StepSucceeded, true, nil
	case EventStepSkipped:
		u.Status = StepSkipped
	case EventStepFailed:
		u.Status, u.Effected = StepFailed, false
		u.Failures++
		if d.Again {
			u.Status = StepPending
		}
	}
	s.except(u, e.Kind, d)
	return nil
}

// except keeps what a completed run must not hide.
func (s *State) except(u *StepState, kind string, d StepEnd) {
	if kind == EventStepFailed && d.Divert != "" {
		s.Exceptions = append(s.Exceptions, Exception{Step: u.ID, What: "failed, then " + d.Divert, Reason: d.Error})
	}
}

func (u *StepState) undo(e relight.Event) error {
	var d StepEnd
	if err := read(e, &d); err != nil {
		return err
	}
	switch e.Kind {
	case EventStepUndoing:
		u.Status = StepUndoing
	case EventStepUndone:
		*u = StepState{
			ID: u.ID, Title: u.Title, Phase: u.Phase, Status: StepUndone, Attempts: u.Attempts, Edits: u.Edits,
			Expanded: u.Expanded, Items: u.Items, Element: u.Element, step: u.step,
		}
	case EventStepUndoFailed:
		u.Status, u.Error, u.Code = StepFailed, "undo: "+d.Error, d.Code
	}
	return nil
}

// answered folds questions and what people said to them.
func (u *StepState) answered(e relight.Event) error {
	switch e.Kind {
	case EventConfirmRequested, EventAskRequested, EventChoiceRequested:
		u.Question = &Question{}
		switch u.Status { // what asks in its midst stays in flight
		case StepPending, StepUndone, StepUnknown:
			u.Status = StepWaiting
		}
		return read(e, u.Question)
	case EventStepUnknown:
		u.Status = StepUnknown
	case EventStepDeferred:
		u.Status = StepPending
	case EventConfirmed:
		u.Confirmed, u.Question = &Confirmation{}, nil
		u.unwait()
		return read(e, u.Confirmed)
	case EventAnswered:
		u.Answer, u.Question = &Answer{}, nil
		u.unwait()
		return read(e, u.Answer)
	case EventChosen:
		var c Choice
		if err := read(e, &c); err != nil {
			return err
		}
		u.Chosen, u.Question = c.Option, nil
		u.unwait()
	}
	return nil
}

// unwait goes back to what stood before the question.
func (u *StepState) unwait() {
	if u.Status == StepWaiting {
		u.Status = StepPending
	}
}

func plainValue(v any) any { return plainMap(map[string]any{"v": v})["v"] }

// planHash names what will be done: an approval or a schedule that was given for it holds for nothing else.
func planHash(hash string, mode Mode, inputs map[string]any, edits map[string]map[string]any) string {
	raw, err := json.Marshal(struct {
		Hash   string                    `json:"hash"`
		Mode   Mode                      `json:"mode"`
		Inputs map[string]any            `json:"inputs"`
		Edits  map[string]map[string]any `json:"edits,omitempty"`
	}{hash, mode, inputs, edits})
	if err != nil {
		raw = []byte(hash) // inputs are made from JSON and always return to it
	}
	sum := blake3.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func blastHash(b action.Blast) string {
	raw, err := json.Marshal(b)
	if err != nil {
		raw = []byte(b.Action + b.Target) // strings only: it cannot fail
	}
	sum := blake3.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func (s *State) applyOverride(e relight.Event) error {
	var d Change
	if err := read(e, &d); err != nil {
		return err
	}
	s.Overrides = append(s.Overrides, OverrideRecord{At: e.At, Actor: e.Actor, Kind: e.Kind, Step: e.Step, Reason: d.Reason})
	switch e.Kind {
	case EventAbort:
		s.Status, s.Reason, s.Finished = relight.RunAborted, d.Reason, e.At
		return nil
	case EventRollBack:
		to := d.To
		s.RollingTo = &to
		return nil
	case EventEdit:
		return s.edit(e.Step, d.Inputs)
	}
	u, err := s.unit(e.Step)
	if err != nil {
		return err
	}
	return s.overrideStep(u, e, d)
}

func (s *State) overrideStep(u *StepState, e relight.Event, d Change) error {
	except := func(what string) {
		s.Exceptions = append(s.Exceptions, Exception{Step: u.ID, What: what, Actor: e.Actor, Reason: d.Reason})
	}
	u.Question, u.Reason = nil, d.Reason
	defer s.reopen(u)
	switch e.Kind {
	case EventRetry:
		u.again()
		for _, item := range u.Items {
			if item.Status != StepSucceeded && item.Status != StepSkipped {
				item.again()
			}
		}
		return nil
	case EventSkip:
		u.Status, u.Finished = StepSkipped, e.At
		except("skipped")
	case EventForceDone:
		out, err := readOutput(d.Output)
		if err != nil {
			return err
		}
		u.Status, u.Finished, u.By, u.Output, u.Effected = StepSucceeded, e.At, "person", out, true
		except("forced done")
	}
	return nil
}

// again makes a step as if it had not been tried.
func (u *StepState) again() {
	u.Status, u.Failures, u.Effected, u.Divert, u.Finished, u.Question = StepPending, 0, false, "", time.Time{}, nil
}

// reopen takes back the failure of a step when one of its elements was overridden.
func (s *State) reopen(item *StepState) {
	for _, u := range s.Steps {
		for _, i := range u.Items {
			if i == item && u.Status == StepFailed {
				u.Status, u.Divert, u.Finished = StepPending, "", time.Time{}
			}
		}
	}
}

func (s *State) edit(step string, inputs map[string]any) error {
	if step == "" {
		s.Inputs = plainMap(merge(s.Inputs, inputs))
	} else {
		u, err := s.unit(step)
		if err != nil {
			return err
		}
		u.Edits = plainMap(merge(u.Edits, inputs))
	}
	edits := map[string]map[string]any{}
	for _, u := range s.units() {
		if len(u.Edits) > 0 {
			edits[u.ID] = u.Edits
		}
	}
	s.PlanHash = planHash(s.Hash, s.Mode, s.Inputs, edits)
	return nil
}

func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, b)
	return out
}
