#!/bin/sh
# Prints the directory of the server binaries of one major version of PostgreSQL. Where the machine has none of that major version, they and the
# libraries that they need are unpacked from the Debian release that has it into a root of their own, which only the tests use: nothing is
# installed, nothing is mounted, no right is needed. The binaries start from where they lie, as their interpreter and library path are set to the root's.
#
#   tools/pgroot.sh 17
#
# A root is kept below the user's cache directory (for the superuser /var/cache, as the servers run as another user) under a name that holds this
# file's digest; it has that name only when it is complete. RELIGHT_TEST_MIRROR names another mirror of Debian.
set -eu

major=${1:-}
case "$major" in
15) suite=bookworm ;;
17) suite=trixie ;;
*)
	echo "error: tools/pgroot.sh: say which major version: 15 or 17" >&2
	exit 2
	;;
esac
installed=/usr/lib/postgresql/$major/bin
if [ -x "$installed/initdb" ] && [ -x "$installed/postgres" ]; then
	echo "$installed"
	exit 0
fi

if [ "$(id -u)" = 0 ]; then
	cache=/var/cache/relight
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/relight
fi
digest=$(sha256sum "$0" | cut -c1-12)
root=$cache/postgresql-$major-$suite-$digest
bin=$root/usr/lib/postgresql/$major/bin
if [ -d "$root" ]; then
	echo "$bin"
	exit 0
fi

fail() { # fail ERROR HINT
	echo "error: make a root with PostgreSQL $major: $1" >&2
	echo "hint: $2" >&2
	exit 1
}
for program in apt-get dpkg-deb sha256sum flock; do
	command -v "$program" >/dev/null 2>&1 ||
		fail "$program is not here" "the tests need PostgreSQL $major in $installed; on a system without Debian's packages put it there, or a link to it"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "$keyring is not here" "apt-get install debian-archive-keyring"

mkdir -p "$cache"
exec 9>"$cache/postgresql-$major.lock"
flock 9
if [ -d "$root" ]; then # somebody else made it meanwhile
	echo "$bin"
	exit 0
fi
echo "unpacking PostgreSQL $major of Debian $suite into $root" >&2
part=$root.part
rm -rf "$part"
mkdir -p "$part/apt/lists/partial" "$part/apt/archives/partial"
trap 'rm -rf "$part"' EXIT
: >"$part/apt/status"

# An apt of its own: this release's index, and a machine on which nothing is installed, so that every dependency is named.
echo "deb [signed-by=$keyring] ${RELIGHT_TEST_MIRROR:-http://deb.debian.org/debian} $suite main" >"$part/apt/sources.list"
cat >"$part/apt/apt.conf" <<CONF
Dir::State "$part/apt";
Dir::State::status "$part/apt/status";
Dir::State::lists "$part/apt/lists";
Dir::Cache "$part/apt";
Dir::Etc::sourcelist "$part/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::preferences "/dev/null";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "3";
CONF
export APT_CONFIG="$part/apt/apt.conf"
online="this needs Debian's mirror, once; RELIGHT_TEST_MIRROR names another"
apt-get -qq update >&2 || fail "the index of $suite cannot be read" "$online"

# Libraries and the server; not what only maintainer scripts and just-in-time compilation need, which is most of the size.
packages=$(apt-get -qq --print-uris -y install "postgresql-$major" patchelf | sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" |
	grep -E "^(lib|zlib|patchelf|postgresql-$major|postgresql-client-$major)" | grep -Ev '^(libllvm|libz3|libperl|libc-|libdb|.*-perl$)')
# shellcheck disable=SC2086 # the list is split on purpose
(cd "$part/apt/archives" && apt-get -qq download $packages) >&2 || fail "its packages cannot be fetched" "$online"
for deb in "$part"/apt/archives/*.deb; do dpkg-deb -x "$deb" "$part"; done
rm -rf "$part/usr/share/doc" "$part/usr/share/man" "$part/usr/share/locale" "$part/usr/lib/postgresql/$major/lib/bitcode" "$part/usr/lib/postgresql/$major/lib/llvmjit.so"

# Where the root will lie is what the binaries must say.
loader=$(cd "$part" && find . -name 'ld-linux*.so.*' | head -n 1 | cut -c2-)
libs=
for dir in "$part"/usr/lib/*-linux-* "$part"/lib/*-linux-*; do
	[ -d "$dir" ] && libs=$libs:$dir
done
libs=${libs#:}
final=$(echo "$libs" | sed "s|$part|$root|g")
for program in "$part/usr/lib/postgresql/$major/bin"/*; do
	case "$(head -c 4 "$program" | tail -c 3)" in ELF) ;; *) continue ;; esac
	"$part$loader" --library-path "$libs" "$part/usr/bin/patchelf" --set-interpreter "$root$loader" --force-rpath --set-rpath "$final" "$program" >&2
done
rm -rf "$part/apt"
chmod -R go+rX "$part"
mv "$part" "$root"
trap - EXIT
"$bin/postgres" --version >&2 || { rm -rf "$root"; fail "its server does not run here" "see what it said above"; }
"$bin/psql" --version >&2 || { rm -rf "$root"; fail "its client does not run here" "see what it said above"; }
echo "$bin"
