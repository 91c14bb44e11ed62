package estate

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/strictyaml"
)

// file is relight.yaml as written.
type file struct {
	Estate       string                    `yaml:"estate"`
	TimeZone     string                    `yaml:"time_zone"`
	State        string                    `yaml:"state"`
	Platform     string                    `yaml:"platform"`
	Repositories map[string]repositoryFile `yaml:"repositories"`
	Stores       map[string]storeFile      `yaml:"stores"`
	Services     map[string]serviceFile    `yaml:"services"`
	Runbooks     []string                  `yaml:"runbooks"`
	Contacts     Contacts                  `yaml:"contacts"`
	Secrets      map[string]string         `yaml:"secrets"`
	Approvers    string                    `yaml:"approvers"`
	SignedOnly   bool                      `yaml:"signed_approvals"`
}

type repositoryFile struct {
	URL        string `yaml:"url"`
	Credential string `yaml:"credential"`
}

type storeFile struct {
	Kind         string        `yaml:"kind"`
	Service      string        `yaml:"service"`
	Data         string        `yaml:"data"`
	Connection   string        `yaml:"connection"`
	Peers        []string      `yaml:"peers"`
	Password     string        `yaml:"password"`
	Owner        string        `yaml:"owner"`
	Binaries     string        `yaml:"binaries"`
	Repositories []string      `yaml:"repositories"`
	Spool        string        `yaml:"spool"`
	SpoolLimit   string        `yaml:"spool_limit"`
	Slot         slotFile      `yaml:"slot"`
	Evidence     string        `yaml:"evidence"`
	Sandbox      string        `yaml:"sandbox"`
	Policy       policyFile    `yaml:"policy"`
	Objective    objectiveFile `yaml:"objective"`
	Synchronous  *syncFile     `yaml:"synchronous"`
	Invariants   []Invariant   `yaml:"invariants"`
}

type slotFile struct {
	Limit    string `yaml:"limit"`
	KeepFree string `yaml:"keep_free"`
	WhenFull string `yaml:"when_full"`
}

type policyFile struct {
	BaseBackup string     `yaml:"base_backup"`
	FullBackup string     `yaml:"full_backup"`
	Budget     string     `yaml:"io_budget"`
	Replay     string     `yaml:"longest_replay"`
	Restore    string     `yaml:"restore_point"`
	Keep       []keepFile `yaml:"keep"`
}

type objectiveFile struct {
	RTO string `yaml:"rto"`
	RPO string `yaml:"rpo"`
}

type serviceFile struct {
	Tier    int      `yaml:"tier"`
	Store   string   `yaml:"store"`
	Writes  []string `yaml:"writes"`
	Process *Process `yaml:"process"`
}

// Load reads and resolves the file at path.
func Load(path string) (*Estate, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		hint := "name another with --config FILE"
		if errors.Is(err, os.ErrPermission) {
			hint = "run as root or as a member of the group that owns it"
		}
		return nil, &relight.Error{Op: "read configuration", Code: relight.CodeUsage, Err: err, Hint: hint}
	}
	return Parse(path, src)
}

// Parse resolves src as the contents of the file at path.
func Parse(path string, src []byte) (*Estate, error) {
	var f file
	if err := strictyaml.Decode(path, 1, src, &f); err != nil {
		return nil, usage(err, "`relight config example` prints a file with every key")
	}
	e, problems := resolve(path, f)
	if len(problems) > 0 {
		return nil, usage(fmt.Errorf("%s: %w", path, errors.Join(problems...)), "correct the file, then `relight config show`")
	}
	return e, nil
}

func usage(err error, hint string) error {
	return &relight.Error{Op: "read configuration", Code: relight.CodeUsage, Err: err, Hint: hint}
}

// resolver gathers every problem of a file, so that one look mends them all.
type resolver struct {
	dir      string
	problems []error
}

func (r *resolver) failf(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

func (r *resolver) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.dir, p)
}

func (r *resolver) duration(where, s string, preset time.Duration) time.Duration {
	if s == "" {
		return preset
	}
	d, err := ParseDuration(s)
	if err != nil {
		r.failf("%s: %w", where, err)
	}
	return d
}

func (r *resolver) size(where, s, preset string) int64 {
	n, err := ParseSize(orElse(s, preset))
	if err != nil {
		r.failf("%s: %w", where, err)
	}
	return n
}

func resolve(path string, f file) (*Estate, []error) {
	r := &resolver{dir: filepath.Dir(path)}
	e := &Estate{Name: f.Estate, File: path, Directory: r.dir, Platform: orElse(f.Platform, "process"), Zone: time.UTC,
		State: r.path(orElse(f.State, "/var/lib/relight")), Contacts: f.Contacts, Secrets: f.Secrets, Approvers: r.path(f.Approvers), SignedOnly: f.SignedOnly,
		Repositories: map[string]Repository{}, Stores: map[string]Store{}, Services: map[string]Service{}}
	if e.Name == "" {
		r.failf("estate: a name is missing")
	}
	if e.Platform != "process" {
		r.failf("platform: %q is unknown; this version knows \"process\"", e.Platform)
	}
	if f.TimeZone != "" {
		zone, err := time.LoadLocation(f.TimeZone)
		if err != nil {
			r.failf("time_zone: %w", err)
		} else {
			e.Zone = zone
		}
	}
	for _, dir := range f.Runbooks {
		e.Runbooks = append(e.Runbooks, r.path(dir))
	}
	for name, in := range f.Repositories {
		e.Repositories[name] = r.repository(e, name, in)
	}
	for name, in := range f.Services {
		e.Services[name] = r.service(e, name, in)
	}
	for name, in := range f.Stores {
		e.Stores[name] = r.store(e, name, in)
	}
	r.crossCheck(e)
	slices.SortFunc(r.problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return e, r.problems
}

func (r *resolver) repository(e *Estate, name string, in repositoryFile) Repository {
	if in.URL == "" {
		r.failf("repositories.%s.url: missing", name)
	}
	return Repository{Name: name, URL: r.url(in.URL),
		Credential: r.path(orElse(in.Credential, filepath.Join(e.State, "credentials", name+".json")))}
}

// url makes a file URL's path absolute, so that a run does not depend on where it was started.
func (r *resolver) url(u string) string {
	if rest, ok := strings.CutPrefix(u, "file://"); ok {
		return "file://" + r.path(rest)
	}
	if !strings.Contains(u, "://") && u != "" {
		return "file://" + r.path(u)
	}
	return u
}

func (r *resolver) service(e *Estate, name string, in serviceFile) Service {
	s := Service{Service: relight.Service{Name: name, Tier: relight.Tier(in.Tier), Store: in.Store, Writes: in.Writes}, Process: in.Process}
	if s.Tier == 0 {
		s.Tier = 3
	}
	if s.Tier < 1 || s.Tier > 3 {
		r.failf("services.%s.tier: %d is not 1, 2 or 3", name, in.Tier)
	}
	if in.Process == nil || len(in.Process.Command) == 0 {
		r.failf("services.%s.process.command: missing", name)
		return s
	}
	p := *in.Process
	p.Directory, p.Log = r.path(p.Directory), r.path(orElse(p.Log, filepath.Join(e.State, "services", name+".log")))
	p.Signal = orElse(p.Signal, "TERM")
	if !slices.Contains([]string{"TERM", "INT", "QUIT"}, p.Signal) {
		r.failf("services.%s.process.stop_signal: %q is not TERM, INT or QUIT", name, p.Signal)
	}
	p.StopAfter = r.duration("services."+name+".process.stop_grace", p.StopGrace, time.Minute)
	s.Process = &p
	return s
}

func (r *resolver) store(e *Estate, name string, in storeFile) Store {
	at := "stores." + name
	if in.Kind != "postgres" {
		r.failf("%s.kind: %q is unknown; this version knows \"postgres\"", at, in.Kind)
	}
	if in.Data == "" {
		r.failf("%s.data: missing", at)
	}
	for i, peer := range in.Peers {
		if peer == "" || peer == in.Connection || slices.Contains(in.Peers[:i], peer) {
			r.failf("%s.peers[%d]: %q is no other server; name each server of the cluster once", at, i, peer)
		}
	}
	repositories := in.Repositories
	if len(repositories) == 0 {
		for repository := range e.Repositories {
			repositories = append(repositories, repository)
		}
		slices.Sort(repositories)
	}
	objective := relight.Objective{RTO: r.duration(at+".objective.rto", in.Objective.RTO, 2*time.Hour), RPO: r.duration(at+".objective.rpo", in.Objective.RPO, 15*time.Minute)}
	return Store{Name: name, Kind: in.Kind, Service: in.Service, Data: r.path(in.Data), Connection: in.Connection, Peers: in.Peers, Password: in.Password,
		Owner: in.Owner, Binaries: r.path(in.Binaries), Repositories: repositories, SpoolLimit: r.size(at+".spool_limit", in.SpoolLimit, "4GiB"),
		Slot:        r.slot(at+".slot", in.Slot),
		Evidence:    r.path(orElse(in.Evidence, filepath.Join(e.State, "evidence"))),
		Sandbox:     r.path(orElse(in.Sandbox, filepath.Join(e.State, "sandbox"))),
		Policy:      r.policy(at+".policy", in.Policy, objective),
		Objective:   objective,
		Spool:       r.path(orElse(in.Spool, filepath.Join(e.State, "spool", name))),
		Synchronous: r.synchronous(at+".synchronous", in.Synchronous),
		Invariants:  in.Invariants}
}

func (r *resolver) slot(at string, in slotFile) Slot {
	r.choice(at+".when_full", orElse(in.WhenFull, "release"), "release", "hold", "")
	limit := r.size(at+".limit", in.Limit, "16GiB")
	if n, err := ParseSize(in.Limit); in.Limit != "" && err == nil && n == 0 {
		r.failf("%s.limit: nothing would be retained; leave it out for 16GiB", at)
	}
	return Slot{Limit: limit, KeepFree: r.size(at+".keep_free", in.KeepFree, "2GiB"), Hold: in.WhenFull == "hold"}
}

// crossCheck holds names against each other.
func (r *resolver) crossCheck(e *Estate) {
	for name, s := range e.Stores {
		if s.Service != "" && !has(e.Services, s.Service) {
			r.unknown("stores."+name+".service", s.Service, keys(e.Services))
		}
		if len(s.Repositories) == 0 {
			r.failf("stores.%s.repositories: the estate has none", name)
		}
		for _, repository := range s.Repositories {
			if !has(e.Repositories, repository) {
				r.unknown("stores."+name+".repositories", repository, keys(e.Repositories))
			}
		}
	}
	for name, s := range e.Services {
		for _, store := range append(slices.Clone(s.Writes), s.Store) {
			if store != "" && !has(e.Stores, store) {
				r.unknown("services."+name, store, keys(e.Stores))
			}
		}
	}
}

func (r *resolver) unknown(where, name string, known []string) {
	if near := relight.Nearest(name, known); near != "" {
		r.failf("%s: %q is not defined (did you mean %q?)", where, name, near)
		return
	}
	r.failf("%s: %q is not defined; there are: %s", where, name, strings.Join(known, ", "))
}

func has[V any](m map[string]V, k string) bool { _, ok := m[k]; return ok }

func keys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func orElse(s, preset string) string {
	if s == "" {
		return preset
	}
	return s
}

// ParseDuration reads Go's durations and, beyond them, whole days: "15m", "36h", "30d".
func ParseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 100*365 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 15m, 36h or 30d", s)
	}
	return d, nil
}

// ParseSize reads bytes with an optional unit: "4GiB", "512MiB", "1000".
func ParseSize(s string) (int64, error) {
	units := map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "": 1}
	digits := strings.TrimRight(s, "KMGTiB")
	factor, ok := units[strings.TrimPrefix(s, digits)]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is not a size such as 512MiB or 4GiB", s)
	}
	return n * factor, nil
}
