// Package runbook is the language of runbooks and the engine that executes them.
//
// Compile turns a Markdown file into a Runbook, strictly; Engine executes it. It promises:
//
//   - One interpreter: dry run, drill and real run take the same compiled runbook through the same engine. A dry run has
//     real probes and no effect, and what it cannot know is unknown.
//   - A run is a fold of its events, each durable before anything rests on it. After kill -9 anywhere, Resume goes on.
//   - What was in flight at a crash is unknown: what it left running is ended, its probe asked, else a person. A step with
//     a probe is never done twice, and no step is done twice without a person having said so.
//   - Data is destroyed only after the blast radius was shown and the target's name typed, for that very plan.
//   - A failure that the runbook does not take up stops the run. Nothing is passed over in silence: what a person
//     overrode is an exception on record.
//
// docs/runbooks.md decides the language, docs/runs.md what happens to a run.
package runbook
