#!/bin/sh
# Installs what relight's demonstration or tests need and the machine lacks. Debian and its kin only; elsewhere it says
# what to install. A PostgreSQL that it installs comes without the distribution's default server.
#
#   tools/setup.sh demo    PostgreSQL
#   tools/setup.sh test    PostgreSQL, a C compiler (for the race detector), zstd, age, b3sum, python3; of the major versions that are
#                          tested, those that are not installed, in a root of their own (tools/pgroot.sh)
set -eu

missing=
need() { # need PACKAGE: the package's program was not found
	missing="$missing $1"
}
has() { command -v "$1" >/dev/null 2>&1; }
has_postgres() {
	for initdb in /usr/lib/postgresql/*/bin/initdb; do
		[ -x "$initdb" ] && return 0
	done
	return 1
}

has_postgres || need postgresql
case "${1:-}" in
demo) ;;
test)
	has cc || has gcc || { need gcc; need libc6-dev; }
	for program in zstd age b3sum python3; do
		has "$program" || need "$program"
	done
	;;
*)
	echo "error: tools/setup.sh: say what for: demo or test" >&2
	exit 2
	;;
esac
roots() { # the servers that only the tests use
	[ "$1" = test ] || return 0
	here=$(dirname "$0")
	"$here/pgroot.sh" 15 >/dev/null
	"$here/pgroot.sh" 17 >/dev/null
}
if [ -z "$missing" ]; then
	roots "$1"
	exit 0
fi

root() { # root COMMAND…: run as root
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
if ! has apt-get; then
	echo "error: not installed:$missing" >&2
	echo "hint: install them with this system's package manager (the names are Debian's), then try again" >&2
	exit 1
fi
if ! root true 2>/dev/null; then
	echo "error: not installed:$missing" >&2
	echo "hint: run as root, or first: sudo apt-get install$missing" >&2
	exit 1
fi

# Without this file the package makes a server and starts it, which nobody asked for. It is read only while a PostgreSQL is
# installed for the first time, and removed afterwards.
dropin=/etc/postgresql-common/createcluster.d/relight.conf
case "$missing" in *postgresql*)
	root mkdir -p "${dropin%/*}"
	echo "create_main_cluster = false" | root tee "$dropin" >/dev/null
	trap 'root rm -f "$dropin"' EXIT
	;;
esac

echo "installing:$missing" >&2
root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
# shellcheck disable=SC2086 # the list is split on purpose
root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing >&2
roots "$1"
