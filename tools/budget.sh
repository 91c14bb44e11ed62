#!/bin/bash
# Keeps the binary within its budget: at most 45 MB stripped, and at most 180 CPU-seconds for a build from nothing (with the
# modules downloaded).
set -eu
max_bytes=45000000
max_cpu=180

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go mod download

TIMEFORMAT='%U %S'
cold() { # builds from nothing, and sets cpu
	rm -rf "$work/cache"
	{ time GOCACHE="$work/cache" make --no-print-directory build BIN="$work/relight" >"$work/log" 2>&1 || touch "$work/failed"; } 2>"$work/times"
	if [ -e "$work/failed" ]; then
		cat "$work/log" >&2
		exit 1
	fi
	cpu=$(awk '{ printf "%d", $1 + $2 }' "$work/times")
}
cold
if [ "$cpu" -gt "$max_cpu" ]; then # a neighbour on the machine costs processor time too: only what is over twice is over
	cold
fi
bytes=$(stat -c %s "$work/relight")
echo "budget: binary $((bytes / 1000)) kB of $((max_bytes / 1000)), cold build $cpu CPU-seconds of $max_cpu"
if [ "$bytes" -gt "$max_bytes" ] || [ "$cpu" -gt "$max_cpu" ]; then
	echo "error: over budget" >&2
	exit 1
fi
