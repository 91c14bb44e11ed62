package repo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// cluster is the signed record of which database cluster a store's WAL comes from: wal/<store>/system.<n>,
// created once each, the newest counts.
type cluster struct {
	System relight.SystemID `json:"system"`
	Why    string           `json:"why,omitempty"`
}

// checkCluster refuses WAL of another cluster than the store's. The first to write decides; a rebuilt cluster
// is adopted on purpose.
func (s *sink) checkCluster(ctx context.Context, k WALKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.system == k.System && k.System != 0 {
		return nil
	}
	n, c, err := s.m.cluster(ctx, k.Store)
	if err != nil {
		return err
	}
	if c.System == 0 {
		if err := s.m.putCluster(ctx, k.Store, n+1, cluster{System: k.System}); err != nil && !errors.Is(err, blob.ErrExists) {
			return err
		}
		if n, c, err = s.m.cluster(ctx, k.Store); err != nil {
			return err
		}
	}
	if c.System != k.System {
		return &relight.Error{
			Op: "put WAL", Subject: "store " + k.Store, Code: relight.CodeUsage,
			Err:  fmt.Errorf("%w: the store belongs to the cluster with system id %s, and this is %s (record %d)", ErrConflict, c.System, k.System, n),
			Hint: "check which server the store names; if the cluster was made anew: relight postgres adopt --store " + k.Store,
		}
	}
	s.system = k.System
	return nil
}

// AdoptCluster makes a store take the WAL of another cluster from now on: after initdb or pg_upgrade. What the
// former cluster wrote stays, and its server is refused from now on.
func (m *Meta) AdoptCluster(ctx context.Context, store string, system relight.SystemID, why string) error {
	if err := validElement("store", store); err != nil {
		return err
	}
	n, c, err := m.cluster(ctx, store)
	if err != nil {
		return err
	}
	if n > 0 && c.System == system {
		return nil
	}
	return m.putCluster(ctx, store, n+1, cluster{System: system, Why: why})
}

// Cluster gives the system id of the cluster that a store belongs to; 0 when none has written yet.
func (m *Meta) Cluster(ctx context.Context, store string) (relight.SystemID, error) {
	_, c, err := m.cluster(ctx, store)
	return c.System, err
}

func (m *Meta) putCluster(ctx context.Context, store string, n int, c cluster) error {
	return m.putSigned(ctx, "cluster", clusterPrefix(store)+strconv.Itoa(n), c, sealedMeta)
}

func clusterPrefix(store string) string { return walPrefix(store) + "system." }

// cluster gives the number of the newest record, and the newest one that counts. What a revoked host said does not: whoever writes next decides anew.
func (m *Meta) cluster(ctx context.Context, store string) (int, cluster, error) {
	newest := 0
	err := m.storage.List(ctx, clusterPrefix(store), func(i blob.Info) error {
		if n, err := strconv.Atoi(strings.TrimPrefix(i.Name, clusterPrefix(store))); err == nil {
			newest = max(newest, n)
		}
		return nil
	})
	if err != nil {
		return 0, cluster{}, fmt.Errorf("find the cluster of store %s: %w", store, notAbsent(err))
	}
	for n := newest; n > 0; n-- {
		var c cluster
		_, err := m.getSigned(ctx, "cluster", clusterPrefix(store)+strconv.Itoa(n), &c)
		if errors.Is(err, errRevoked) {
			continue
		}
		if err != nil {
			return 0, cluster{}, fmt.Errorf("find the cluster of store %s: %w", store, notAbsent(err))
		}
		return newest, c, nil
	}
	return newest, cluster{}, nil
}
