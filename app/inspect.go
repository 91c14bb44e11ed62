package app

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/repo"
)

// RepositoryInfo is what `relight repo info` shows.
type RepositoryInfo struct {
	URL         string      `json:"url"`
	ID          string      `json:"id"`
	Fingerprint string      `json:"fingerprint"`
	Created     time.Time   `json:"created"`
	Epoch       int         `json:"epoch"`
	SingleHost  bool        `json:"single_host"`
	KeyTested   time.Time   `json:"key_tested,omitzero"`
	Keys        KeyInfo     `json:"keys"`
	Stores      []StoreInfo `json:"stores"`
	Warnings    []string    `json:"warnings,omitempty"`
}

// KeyInfo says who may open and who may write.
type KeyInfo struct {
	Recipients []string   `json:"recipients"`
	Hosts      []HostInfo `json:"hosts"`
	Problems   []string   `json:"problems,omitempty"`
}

// HostInfo is an enrolled host.
type HostInfo struct {
	Host  string `json:"host"`
	Role  string `json:"role"`
	Epoch int    `json:"epoch"`
}

// StoreInfo is a protected store's newest snapshot.
type StoreInfo struct {
	Store     string             `json:"store"`
	Snapshots int                `json:"snapshots"`
	Newest    relight.SnapshotID `json:"newest"`
	Finished  time.Time          `json:"finished,omitzero"`
}

// openPlace opens the repository named, or at url: as the recovery side when an identity was given, else with this host's credential.
func (a *App) openPlace(ctx context.Context, name, url string) (*repo.Meta, error) {
	if url == "" && len(a.o.Identities) == 0 {
		return a.Repository(ctx, name)
	}
	if url == "" {
		found, _, err := a.RepositoryURL(name)
		if err != nil {
			return nil, err
		}
		url = found
	}
	s, err := a.OpenStorage(url)
	if err != nil {
		return nil, err
	}
	return a.RecoverySide(ctx, s)
}

// RepositoryInfo describes a repository.
func (a *App) RepositoryInfo(ctx context.Context, name, url string) (RepositoryInfo, error) {
	m, err := a.openPlace(ctx, name, url)
	if err != nil {
		return RepositoryInfo{}, err
	}
	return Describe(ctx, m)
}

// Describe gathers what a repository says of itself.
func Describe(ctx context.Context, m *repo.Meta) (RepositoryInfo, error) {
	d := m.Descriptor()
	info := RepositoryInfo{URL: m.Storage().String(), ID: d.ID, Fingerprint: d.Fingerprint(), Created: d.Created, Epoch: m.NewestEpoch(), SingleHost: d.SingleHost}
	recipients, err := m.Recipients(ctx)
	if err != nil {
		return info, err
	}
	for _, r := range recipients {
		info.Keys.Recipients = append(info.Keys.Recipients, r.String())
	}
	hosts, problems := m.Hosts()
	for _, h := range hosts {
		info.Keys.Hosts = append(info.Keys.Hosts, HostInfo{Host: h.Host, Role: h.Role, Epoch: h.Epoch})
	}
	for _, p := range problems {
		info.Keys.Problems = append(info.Keys.Problems, p.Error())
	}
	if err := info.keyTest(ctx, m); err != nil {
		return info, err
	}
	return info, info.stores(ctx, m)
}

func (info *RepositoryInfo) keyTest(ctx context.Context, m *repo.Meta) error {
	tested, ok, err := m.LastKeyTest(ctx)
	if err != nil {
		return err
	}
	switch {
	case !ok:
		info.Warnings = append(info.Warnings, "the offline recovery key was never tested: relight repo key-test --identity FILE")
	case !tested.Covers(info.Epoch):
		info.Warnings = append(info.Warnings, "the offline recovery key was not tested since the newest key epoch began: relight repo key-test --identity FILE")
	}
	info.KeyTested = tested.At
	if info.SingleHost {
		info.Warnings = append(info.Warnings, "single-host: whoever takes this host can read everything that the repository holds")
	}
	return nil
}

func (info *RepositoryInfo) stores(ctx context.Context, m *repo.Meta) error {
	names, err := m.Stores(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		all, err := m.Snapshots(ctx, name)
		if err != nil {
			return err
		}
		s := StoreInfo{Store: name, Snapshots: len(all)}
		if len(all) > 0 {
			s.Newest, s.Finished = all[len(all)-1].ID, all[len(all)-1].Finished
		}
		info.Stores = append(info.Stores, s)
	}
	return nil
}

// CheckRepository reads a repository back. Without an identity it checks what the metadata identity can.
func (a *App) CheckRepository(ctx context.Context, name, url string, found func(repo.Finding)) (repo.Report, error) {
	m, err := a.openPlace(ctx, name, url)
	if err != nil {
		return repo.Report{}, err
	}
	var r *repo.Reader
	if m.Keyring().CanRead() {
		if r, err = m.Reader(); err != nil {
			return repo.Report{}, err
		}
	}
	return m.Check(ctx, r, found)
}

// RescueKit prints what must be kept offline.
func (a *App) RescueKit(ctx context.Context, name, url string, w io.Writer) error {
	m, err := a.openPlace(ctx, name, url)
	if err != nil {
		return err
	}
	var facts []repo.KitFact
	if e, err := a.Estate(); err == nil {
		facts = slices.DeleteFunc([]repo.KitFact{{Label: "Hotline", Value: e.Contacts.Hotline}, {Label: "Bridge", Value: e.Contacts.Bridge},
			{Label: "Configuration", Value: e.File}}, func(f repo.KitFact) bool { return f.Value == "" })
	}
	return m.RescueKit(ctx, w, facts...)
}

// KeyTest proves that the given identities open a repository.
func (a *App) KeyTest(ctx context.Context, s blob.Storage) (repo.KeyTested, error) {
	ids, err := a.Identities()
	if err != nil {
		return repo.KeyTested{}, err
	}
	if len(ids) == 0 {
		return repo.KeyTested{}, &relight.Error{Op: "test key", Code: relight.CodeUsage, Err: errors.New("no identity was given"), Hint: "name the offline key with --identity FILE"}
	}
	return repo.KeyTest(ctx, s, repo.Options{Now: a.o.Now, Log: a.o.Log}, ids...)
}
