package postgres

import (
	"path"
	"strconv"
	"strings"
)

// What the server's own base backup leaves out (basebackup.c), no more and no less.
var (
	// emptiedDirs are kept as directories, without contents.
	emptiedDirs = map[string]bool{
		"pg_stat_tmp": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true,
		"pg_serial": true, "pg_snapshots": true, "pg_subtrans": true, "pg_wal": true,
	}
	// skippedFiles are left out wherever they are.
	skippedFiles = map[string]bool{
		"postgresql.auto.conf.tmp": true, "current_logfiles.tmp": true, "backup_label": true, "tablespace_map": true,
		"backup_manifest": true, "postmaster.pid": true, "postmaster.opts": true, ".DS_Store": true,
	}
)

const (
	initFork   = "init"
	stateFile  = ".relight-restore"
	keptEtc    = "relight/etc"
	labelName  = "backup_label"
	mapName    = "tablespace_map"
	tblspcDir  = "pg_tblspc"
	walDir     = "pg_wal"
	walStatus  = "pg_wal/archive_status"
	walSummary = "pg_wal/summaries"
)

// skipped tells whether a name is left out in every directory.
func skipped(name string) bool {
	return skippedFiles[name] || name == stateFile || name == stateFile+tempSuffix ||
		strings.HasPrefix(name, "pg_internal.init") || strings.HasPrefix(name, "pgsql_tmp")
}

// relation is a parsed relation file name: 16384_fsm.2.
type relation struct {
	Number  string
	Fork    string // "", "fsm", "vm", "init"
	Segment int
}

// parseRelation reads the name of a permanent relation's file.
func parseRelation(name string) (relation, bool) {
	base, seg, segmented := strings.Cut(name, ".")
	number, fork, forked := strings.Cut(base, "_")
	r := relation{Number: number, Fork: fork}
	if !oid(number) || forked && fork != "fsm" && fork != "vm" && fork != initFork {
		return r, false
	}
	if !segmented {
		return r, true
	}
	n, err := strconv.Atoi(seg)
	if err != nil || n < 1 || seg[0] == '0' || seg[0] == '+' {
		return r, false
	}
	r.Segment = n
	return r, true
}

// temporary tells whether name is a temporary relation's: t3_16384, t3_16384_vm.1.
func temporary(name string) bool {
	rest, ok := strings.CutPrefix(name, "t")
	if !ok {
		return false
	}
	backend, rel, ok := strings.Cut(rest, "_")
	if !ok || !digits(backend) {
		return false
	}
	_, ok = parseRelation(rel)
	return ok
}

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// oid tells whether s is a number that the server could have given to a relation or database.
func oid(s string) bool { return digits(s) && len(s) <= 10 && s[0] != '0' }

// databaseDir tells whether dir (relative, slash-separated) holds relation files: global, base/5, pg_tblspc/16385/PG_15_202209061/5.
func databaseDir(dir string) bool {
	if dir == "global" {
		return true
	}
	parts := strings.Split(dir, "/")
	switch {
	case len(parts) == 2 && parts[0] == "base":
		return oid(parts[1])
	case len(parts) == 4 && parts[0] == tblspcDir:
		return oid(parts[1]) && strings.HasPrefix(parts[2], "PG_") && oid(parts[3])
	}
	return false
}

// relationFile tells whether a path of the data directory is a relation's, and which.
func relationFile(p string) (relation, bool) {
	if !databaseDir(path.Dir(p)) {
		return relation{}, false
	}
	return parseRelation(path.Base(p))
}

// unlogged finds, among the names of one directory, the relations that have an init fork: only that fork is kept.
func unlogged(names []string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		if r, ok := parseRelation(n); ok && r.Fork == initFork {
			out[r.Number] = true
		}
	}
	return out
}
