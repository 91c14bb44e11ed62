// Package crash kills relight and its servers for real, and holds what the next process makes of it against what was promised.
//
// It promises that every journaled boundary of both built-in scenarios is a kill point; that a process is killed as well between a step's effect and its
// record, by holding the journal's write lock while the effect happens; and that every run prints the seed from which its random moments come. It has
// tests only: build tag slow for the suite of each CI run, in which a run suffers several kills, one after the other; soak beside it for several seeds, every variant,
// and one kill a run.
package crash
