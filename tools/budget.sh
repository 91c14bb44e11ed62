#!/bin/bash
# Keeps the binary within its budget, at most 45 MB stripped, and measures a build from nothing (with the modules downloaded), which should take at
# most 180 CPU-seconds.
set -eu
max_bytes=45000000
max_cpu=180

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go mod download

TIMEFORMAT='%U %S'
{ time GOCACHE="$work/cache" make --no-print-directory build BIN="$work/relight" >"$work/log" 2>&1 || touch "$work/failed"; } 2>"$work/times"
if [ -e "$work/failed" ]; then
	cat "$work/log" >&2
	exit 1
fi
cpu=$(awk '{ printf "%d", $1 + $2 }' "$work/times")
bytes=$(stat -c %s "$work/relight")
echo "budget: binary $((bytes / 1000)) kB of $((max_bytes / 1000)), cold build $cpu CPU-seconds of $max_cpu"
if [ "$cpu" -gt "$max_cpu" ]; then # processor time differs between machines by more than a change of ours would: a figure to look at, no failure
	echo "warning: the cold build is over its budget, or this machine is slow: 70 CPU-seconds are what a quick one takes" >&2
fi
if [ "$bytes" -gt "$max_bytes" ]; then
	echo "error: the binary is over its budget" >&2
	exit 1
fi
