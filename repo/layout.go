package repo

import "strings"

// kindOf names the row of the layout table of docs/format.md that an object's name belongs to, "" where it belongs to none.
func kindOf(name string) string {
	if name == descriptorName {
		return "descriptor"
	}
	for _, k := range []struct{ prefix, kind string }{
		{wrapPrefix, "wrapping"}, {epochPrefix, "epoch"}, {recipientPrefix, "recipient"}, {hostPrefix, "host"}, {revokedPrefix, "revocation"},
		{testedPrefix, "tested"}, {indexPrefix, "index"}, {snapPrefix, manifestKind}, {"proof/", "proof"}, {checkedPrefix, checkedKind}, {damagedPrefix, damagedKind},
		{estatePrefix, "estate"}, {setPrefix, setKind}, {witnessPrefix, witnessKind},
	} {
		if strings.HasPrefix(name, k.prefix) {
			return k.kind
		}
	}
	room, rest, _ := strings.Cut(name, "/")
	switch room {
	case "pack":
		if _, ok := packFromName(name); ok {
			return "pack"
		}
	case "wal":
		return kindOfWAL(name)
	case "journal":
		if s, ok := parseJournalName(name); ok && s.Last > 0 {
			return "journal"
		} else if ok {
			return "anchor"
		}
	case "pending":
		if strings.HasSuffix(rest, fenceSuffix) {
			return "fence"
		}
		return "pending"
	case "trash":
		return kindOfTrash(rest)
	case "lease":
		if strings.HasSuffix(rest, beatSuffix) {
			return "beat"
		}
		return "lease"
	}
	return ""
}

func kindOfWAL(name string) string {
	e := strings.Split(name, "/")
	switch {
	case len(e) == 3 && strings.HasPrefix(e[2], "system."):
		return "cluster"
	case len(e) == 4 && e[3] == "coverage.beat":
		return "coverage"
	case len(e) == 6 && e[4] == "gap":
		return "gap"
	case len(e) == 6 && e[4] == "expired":
		return "expired"
	}
	if _, ok := parseSidecarName(name); ok {
		return "sidecar"
	}
	if _, ok := parseSidecarName(strings.TrimSuffix(name, "."+lastElement(name, ".")) + metaSuffix); ok {
		return "body"
	}
	return ""
}

func kindOfTrash(rest string) string {
	_, part, _ := strings.Cut(rest, "/")
	switch {
	case strings.HasPrefix("/"+part, trashSnaps):
		return "trashed manifest"
	case part == "sealed", part == "thin", part == dueMark, strings.HasPrefix(part, "marks."):
		return "trash"
	}
	return ""
}
