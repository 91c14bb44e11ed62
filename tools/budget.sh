#!/bin/bash
# Keeps the binary within its budget: at most 45 MB stripped.
#
#   tools/budget.sh BINARY   look at what `make build` made
#   tools/budget.sh --cold   build it from nothing, with the modules downloaded, which should take at most 180 CPU-seconds. That is a figure to look at:
#                            processor time differs between machines by more than a change of ours would.
set -eu
max_bytes=45000000
max_cpu=180

case "${1:-}" in
--cold)
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	binary=$work/relight
	go mod download
	TIMEFORMAT='%U %S'
	{ time GOCACHE="$work/cache" make --no-print-directory build BIN="$binary" >"$work/log" 2>&1 || touch "$work/failed"; } 2>"$work/times"
	if [ -e "$work/failed" ]; then
		cat "$work/log" >&2
		exit 1
	fi
	echo "budget: cold build $(awk '{ printf "%d", $1 + $2 }' "$work/times") CPU-seconds of $max_cpu"
	;;
"" | -*)
	echo "error: tools/budget.sh: say which binary, or --cold" >&2
	exit 2
	;;
*) binary=$1 ;;
esac

bytes=$(stat -c %s "$binary")
echo "budget: binary $((bytes / 1000)) kB of $((max_bytes / 1000))"
if [ "$bytes" -gt "$max_bytes" ]; then
	echo "error: the binary is over its budget" >&2
	exit 1
fi
