package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// Prove restores a point into a sandbox, starts the real server there, reads every table and index, puts the invariants, records
// the proof in the repository and removes the sandbox. The sandbox's server neither archives nor replicates nor
// listens, and its tablespaces lie inside the sandbox, also those that the WAL creates.
//
// A proof that found faults is recorded too, with OK false, and is no error of Prove; a restore that could not be done is one.
func (s *Store) Prove(ctx context.Context, r *repo.Reader, p relight.RecoveryPoint) (proof relight.Proof, err error) {
	sandbox, err := host.MakePrivate(s.c.SandboxRoot, "relight-proof-", s.now) // those of proofs that were killed go
	if err != nil {
		return proof, fmt.Errorf("make a sandbox: %w", err)
	}
	defer func() { err = errors.Join(err, s.tearDown(ctx, sandbox)) }()
	if err := os.Chmod(sandbox.Path, 0o711); err != nil { // the server's user must get through
		return proof, err
	}
	t := store.Target{Directory: filepath.Join(sandbox.Path, "data"), Owner: s.sandboxOwner(), Sandbox: true}
	run := s.newRestore(r, p, t, store.RestoreOptions{Verify: true})
	run.used = append(run.used, sandbox)
	rerr := run.all(ctx)
	if rerr != nil && len(run.checks) == 0 {
		return proof, fmt.Errorf("prove store %s: %w", s.c.Name, rerr)
	}
	proof = relight.Proof{
		ID: string(run.out.Snapshot) + "-" + s.now().UTC().Format("20060102T150405Z"), Store: s.c.Name, Snapshot: run.out.Snapshot, Point: p,
		At: s.now().UTC(), Restored: run.out, Checks: run.checks, OK: rerr == nil && run.out.Verified,
	}
	proof.Restored.Directory, proof.Restored.Tablespaces = "", nil // gone
	if rerr != nil && relight.CodeOf(rerr) != relight.CodeVerification {
		return proof, fmt.Errorf("prove store %s: %w", s.c.Name, rerr)
	}
	if err := r.Meta().PutProof(ctx, proof); err != nil {
		return proof, fmt.Errorf("record the proof: %w", err)
	}
	return proof, nil
}

// sandboxOwner is the user that runs the sandbox's server: relight's own, unless that is root.
func (s *Store) sandboxOwner() string {
	if os.Geteuid() != 0 {
		return fmt.Sprint(os.Geteuid())
	}
	if s.c.Owner != "" {
		return s.c.Owner
	}
	if u, err := host.OwnerOf(s.c.DataDir); s.c.DataDir != "" && err == nil && u.UID != 0 {
		return fmt.Sprint(u.UID)
	}
	return "postgres"
}

// tearDown removes a sandbox and makes sure that nothing of it is left.
func (s *Store) tearDown(ctx context.Context, sandbox *host.Private) error {
	root := sandbox.Path
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := s.awaitIdle(ctx, "tear down the sandbox of", filepath.Join(root, "data")); err != nil {
		return err
	}
	s.releaseMemory(filepath.Join(root, "data"))
	if err := sandbox.Remove(); err != nil {
		return fmt.Errorf("remove the sandbox: %w", err)
	}
	if exists(root) {
		return fmt.Errorf("the sandbox %s is still there", root)
	}
	return nil
}
