package estate

import "github.com/toolboxai/relight"

// View is the estate as `relight config show` prints it: resolved, and with secrets as references only.
type View struct {
	Estate       string                    `json:"estate"`
	File         string                    `json:"file"`
	TimeZone     string                    `json:"time_zone"`
	State        string                    `json:"state"`
	Platform     string                    `json:"platform"`
	Repositories map[string]RepositoryView `json:"repositories"`
	Stores       map[string]StoreView      `json:"stores"`
	Services     map[string]ServiceView    `json:"services"`
	Runbooks     []string                  `json:"runbooks,omitempty"`
	Approvers    string                    `json:"approvers,omitempty"`
	SignedOnly   bool                      `json:"signed_approvals,omitempty"`
	Contacts     map[string]string         `json:"contacts,omitempty"`
}

// RepositoryView is a repository as printed.
type RepositoryView struct {
	URL        string `json:"url"`
	Credential string `json:"credential"`
}

// StoreView is a store as printed.
type StoreView struct {
	Kind         string   `json:"kind"`
	Service      string   `json:"service"`
	Data         string   `json:"data"`
	Connection   string   `json:"connection"`
	Peers        []string `json:"peers,omitempty"`
	Password     string   `json:"password,omitempty"` // the reference
	Binaries     string   `json:"binaries,omitempty"`
	Repositories []string `json:"repositories"`
	Spool        string   `json:"spool"`
	SpoolLimit   int64    `json:"spool_limit"`
	SlotLimit    int64    `json:"slot_limit"`
	SlotKeepFree int64    `json:"slot_keep_free"`
	SlotHold     bool     `json:"slot_hold,omitempty"`
	Evidence     string   `json:"evidence"`
	Sandbox      string   `json:"sandbox"`
	BaseBackup   string   `json:"base_backup"`
	FullBackup   string   `json:"full_backup"`
	Budget       string   `json:"io_budget,omitempty"`
	Replay       string   `json:"longest_replay,omitempty"`
	RestorePoint string   `json:"restore_point,omitempty"`
	Keep         []string `json:"keep,omitempty"`
	RTO          string   `json:"rto"`
	RPO          string   `json:"rpo"`
	Synchronous  string   `json:"synchronous,omitempty"`
	Invariants   []string `json:"invariants,omitempty"`
}

// ServiceView is a service as printed.
type ServiceView struct {
	relight.Service
	Command []string `json:"command"`
	User    string   `json:"user,omitempty"`
	Log     string   `json:"log"`
}

// View prints the estate.
func (e *Estate) View() View {
	v := View{Estate: e.Name, File: e.File, TimeZone: e.Zone.String(), State: e.State, Platform: e.Platform, Runbooks: e.Runbooks, Approvers: e.Approvers, SignedOnly: e.SignedOnly,
		Repositories: map[string]RepositoryView{}, Stores: map[string]StoreView{}, Services: map[string]ServiceView{},
		Contacts: map[string]string{"hotline": e.Contacts.Hotline, "bridge": e.Contacts.Bridge, "on_call": e.Contacts.OnCall}}
	for name, r := range e.Repositories {
		v.Repositories[name] = RepositoryView{URL: r.URL, Credential: r.Credential}
	}
	for name, s := range e.Stores {
		sv := StoreView{Kind: s.Kind, Service: s.Service, Data: s.Data, Connection: s.Connection, Peers: s.Peers, Password: s.Password, Binaries: s.Binaries,
			Repositories: s.Repositories, Spool: s.Spool, SpoolLimit: s.SpoolLimit, SlotLimit: s.Slot.Limit, SlotKeepFree: s.Slot.KeepFree, SlotHold: s.Slot.Hold, Evidence: s.Evidence, Sandbox: s.Sandbox, BaseBackup: s.BaseBackup.String(), FullBackup: s.FullBackup.String(),
			Budget: s.Budget.String(), RTO: s.Objective.RTO.String(), RPO: s.Objective.RPO.String()}
		for _, k := range s.Keep {
			sv.Keep = append(sv.Keep, k.String())
		}
		if s.Synchronous != nil {
			sv.Synchronous = s.Synchronous.String()
		}
		if s.LongestReplay > 0 {
			sv.Replay = s.LongestReplay.String()
		}
		if s.MarkEvery > 0 {
			sv.RestorePoint = s.MarkEvery.String()
		}
		for _, i := range s.Invariants {
			sv.Invariants = append(sv.Invariants, i.Name)
		}
		v.Stores[name] = sv
	}
	for name, s := range e.Services {
		v.Services[name] = ServiceView{Service: s.Service, Command: s.Process.Command, User: s.Process.User, Log: s.Process.Log}
	}
	return v
}
