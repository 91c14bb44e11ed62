#!/usr/bin/env python3
"""Restore a snapshot and its WAL from a relight repository, without relight.

Needs python3 (standard library only) and the command-line tools age, zstd and b3sum. The format is
docs/format.md; docs/rescue.md says how to use this. It is written to be read: on a bad day you may have to.

What is verified: the recovery keys against the descriptor, every signature (Ed25519, below), every pack and
index against its name, every chunk against its keyed id, every file and WAL body against its digest.
"""

import argparse
import base64
import hashlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from datetime import datetime, timezone

DIR, LINK, SETUID, SETGID, STICKY = 1 << 31, 1 << 27, 1 << 23, 1 << 22, 1 << 20  # Go's fs.FileMode


class Damaged(Exception):
    """Something in the repository is not what was signed."""


# --- Ed25519 (RFC 8032), verification only ---------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = add(q, p)
        p, n = add(p, p), n >> 1
    return q


def same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def decode_point(b):
    y = int.from_bytes(b, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def public_key(seed):
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    x, y, z, _ = multiply(a, BASE)
    inv = pow(z, P - 2, P)
    x, y = x * inv % P, y * inv % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def verify(key, message, sig):
    if len(key) != 32 or len(sig) != 64:
        return False
    a, r = decode_point(key), decode_point(sig[:32])
    s = int.from_bytes(sig[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(sig[:32] + key + message).digest(), "little") % L
    return same(multiply(s, BASE), add(r, multiply(h, a)))


# --- the tools -------------------------------------------------------------------------------------------


def tool(args, data=None):
    r = subprocess.run(args, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if r.returncode:
        raise Damaged("%s: %s" % (" ".join(args[:3]), r.stderr.decode(errors="replace").strip()))
    return r.stdout


def b3sum(paths, key=None):
    """Digests of files, many per process."""
    out = []
    for i in range(0, len(paths), 500):
        args = ["b3sum", "--no-names"] + (["--keyed"] if key else []) + ["--"] + paths[i : i + 500]
        out += tool(args, key).decode().split()
    return out


def pipe(first, second, out):
    """first | second > out, and both must succeed."""
    with open(out, "wb") as f:
        a = subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        b = subprocess.Popen(second, stdin=a.stdout, stdout=f, stderr=subprocess.PIPE)
        a.stdout.close()
        err = b.communicate()[1] + a.stderr.read()
        a.stderr.close()
        if a.wait() or b.returncode:
            raise Damaged("%s: %s" % (first[-1], err.decode(errors="replace").strip()))


def decompress(identity, sealed, out):
    pipe(["age", "-d", "-i", identity, sealed], ["zstd", "-d", "-c", "-q"], out)


# --- signed objects --------------------------------------------------------------------------------------


def members(text):
    """The members of a JSON object, with the text of each value as it stands."""
    dec, at, out = json.JSONDecoder(), text.index("{") + 1, {}

    def skip(i):
        while i < len(text) and text[i] in " \t\r\n,:":
            i += 1
        return i

    while text[skip(at)] != "}":
        key, at = dec.raw_decode(text, skip(at))
        start = skip(at)
        value, at = dec.raw_decode(text, start)
        if key in out:
            raise Damaged("a member stands twice")
        out[key] = (value, text[start:at])
    return out


def parse_time(s):
    head, _, frac = s.rstrip("Z").partition(".")
    t = datetime.strptime(head, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return t + (float("0." + frac) if frac else 0.0)


class Repository:
    def __init__(self, root, identity, work):
        self.root, self.work = root, work
        self.desc = json.loads(self.read("relight.json"))
        if self.desc["format"] != 1:
            raise Damaged("the repository has format %d; this script reads format 1" % self.desc["format"])
        self.authority = base64.b64decode(self.desc["authority"])
        self.hosts, self.revoked = {}, {}
        self.unlock(identity)
        self.enrolments()

    def path(self, name):
        return os.path.join(self.root, *name.split("/"))

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def names(self, prefix):
        top = self.path(prefix)
        for base, dirs, files in os.walk(top):
            dirs.sort()
            for f in sorted(files):
                yield os.path.relpath(os.path.join(base, f), self.root).replace(os.sep, "/")

    def unlock(self, identity):
        """Open every epoch's keys with the recovery identity, and keep them in files for age."""
        data, meta, self.chunk_keys, why = [], [], [], ""
        for name in self.names("keys/epoch"):
            try:
                plain = tool(["age", "-d", "-i", identity, self.path(name)])
            except Damaged as e:
                why = str(e)
                continue
            k = json.loads(plain)
            if k["repository"] != self.desc["id"]:
                continue
            if public_key(base64.b64decode(k["authority"])) != self.authority:
                raise Damaged("%s names another authority than relight.json: one of them is forged" % name)
            data.append(k["data"])
            meta.append(k["meta"])
            self.chunk_keys.append((k["epoch"], base64.b64decode(k["chunk_key"])))
        if not data:
            raise Damaged("the identity opens no epoch of this repository (%s); a post-quantum identity needs age 1.3 or newer, Debian 12 has 1.1.1" % why)
        self.chunk_keys = [k for _, k in sorted(self.chunk_keys, reverse=True)]
        self.data, self.meta = os.path.join(self.work, "data.key"), os.path.join(self.work, "meta.key")
        for path, keys in ((self.data, data), (self.meta, meta)):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write("\n".join(dict.fromkeys(keys)) + "\n")

    def b3(self, *parts):
        path = os.path.join(self.work, "b3")
        with open(path, "wb") as f:
            f.write(b"".join(parts))
        return b3sum([path])[0]

    def envelope(self, text, kind, name):
        m = members(text)
        v = {k: x[0] for k, x in m.items()}
        if v["kind"] != kind or v["name"] != name:
            raise Damaged("%s was signed as %s %s" % (name, v["kind"], v["name"]))
        head = "\0".join(["relight/1", kind, name, v["signer"], v["at"]]) + "\0"
        return v, (head + m["payload"][1]).encode(), base64.b64decode(v["sig"])

    def enrolments(self):
        for name in self.names("keys/hosts"):
            v, message, sig = self.envelope(self.read(name).decode(), "host", name)
            if v["signer"] != "recovery" or not verify(self.authority, message, sig):
                warn("%s is not signed by the authority: it enrols nobody" % name)
                continue
            host, key = v["payload"]["host"], base64.b64decode(v["payload"]["key"])
            self.hosts.setdefault(host, []).append((self.b3(key)[:16], key))
        for name in self.names("keys/revoked"):
            host_key = name.split("/", 2)[2]
            try:
                v, message, sig = self.envelope(self.read(name).decode(), "revocation", name)
                if v["signer"] != "recovery" or not verify(self.authority, message, sig):
                    raise Damaged("not signed by the authority")
                self.revoked[host_key] = v["payload"].get("keep")
            except (Damaged, ValueError, KeyError):
                self.revoked[host_key] = None  # it fails closed

    def signed(self, kind, name):
        """A signed object sealed to metadata: opened, verified, its payload."""
        text = tool(["age", "-d", "-i", self.meta, self.path(name)]).decode()
        v, message, sig = self.envelope(text, kind, name)
        if v["signer"] == "recovery":
            if not verify(self.authority, message, sig):
                raise Damaged("%s: the signature is not the recovery side's" % name)
            return v["payload"]
        for ident, key in self.hosts.get(v["signer"], []):
            if verify(key, message, sig):
                self.check_revoked(v["signer"] + "-" + ident, v["at"], name)
                if kind == "manifest" and v["payload"]["host"] != v["signer"]:
                    raise Damaged("%s: signed by another host than it names" % name)
                return v["payload"]
        raise Damaged("%s: not signed by an enrolled host" % name)

    def check_revoked(self, host_key, at, name):
        if host_key not in self.revoked:
            return
        keep = self.revoked[host_key]
        if not keep or parse_time(at) >= parse_time(keep) or os.stat(self.path(name)).st_mtime >= parse_time(keep):
            raise Damaged("%s: the host that signed it is revoked" % name)


# --- chunks ----------------------------------------------------------------------------------------------


class Chunks:
    """Where every chunk lies, in a database file: memory does not grow with the repository."""

    def __init__(self, repo):
        self.repo = repo
        self.db = sqlite3.connect(os.path.join(repo.work, "chunks.db"), isolation_level=None)
        self.db.executescript(
            """pragma journal_mode=off; pragma synchronous=off;
            create table pack(n integer primary key, id blob unique, kind text, size integer);
            create table chunk(id blob, pack integer, off integer, frame integer, plain integer);
            create table want(pack integer, id blob, file integer, off integer, skip integer, size integer);
            create table mosaic(file integer, off integer, size integer, id blob);
            create table file(n integer primary key, path text);"""
        )
        self.opened = None
        for name in repo.names("index"):
            self.read_index(name)
        self.db.executescript("create index chunk_id on chunk(id); create index chunk_pack on chunk(pack, off);")

    def read_index(self, name):
        if b3sum([self.repo.path(name)])[0] != name.split("/")[1]:
            warn("%s does not match its name; it is left out" % name)
            return
        out = os.path.join(self.repo.work, "index")
        decompress(self.repo.meta, self.repo.path(name), out)
        with open(out, "rb") as f:
            if f.read(8) != b"RLIDX001":
                raise Damaged("%s is no index" % name)
            rows = []
            for _ in range(struct.unpack("<I", f.read(4))[0]):
                pid, kind, size = struct.unpack("<32scQ", f.read(41))
                self.db.execute("insert or ignore into pack(id, kind, size) values(?, ?, ?)", (pid, kind.decode(), size))
                rows.append(self.db.execute("select n from pack where id = ?", (pid,)).fetchone()[0])
            (count,) = struct.unpack("<I", f.read(4))
            self.db.execute("begin")
            for _ in range(count):
                cid, pack, off, frame, plain = struct.unpack("<32sIIII", f.read(48))
                self.db.execute("insert into chunk values(?, ?, ?, ?, ?)", (cid, rows[pack], off, frame, plain))
            self.db.execute("commit")

    def find(self, cid):
        """(pack, plain length); a pack that is there is preferred."""
        for pack, plain in self.db.execute("select pack, plain from chunk where id = ?", (cid,)):
            if os.path.exists(self.pack_path(pack)):
                return pack, plain
        raise Damaged("chunk %s is in no pack that is there" % cid.hex())

    def pack_path(self, n):
        pid, kind = self.db.execute("select id, kind from pack where n = ?", (n,)).fetchone()
        return self.repo.path("pack/%s/%s" % ("meta" if kind == "m" else "data", pid.hex()))

    def open_pack(self, n):
        """Decode one pack. Its plain chunks follow each other in the order of their frames."""
        if self.opened and self.opened[0] == n:
            return self.opened[1]
        path = self.pack_path(n)
        kind = self.db.execute("select kind from pack where n = ?", (n,)).fetchone()[0]
        if b3sum([path])[0] != os.path.basename(path):
            raise Damaged("%s does not match its name" % path)
        plain = os.path.join(self.repo.work, "plain")
        decompress(self.repo.meta if kind == "m" else self.repo.data, path, plain)
        where, at, end = {}, 0, 0
        for cid, off, frame, size in self.db.execute("select distinct id, off, frame, plain from chunk where pack = ? order by off", (n,)):
            if off != end:
                raise Damaged("%s: the index skips a frame at %d" % (path, end))
            where[cid], at, end = (at, size), at + size, off + frame
        if os.path.getsize(plain) != at:
            raise Damaged("%s opens to another length than its index says" % path)
        self.opened = (n, where)
        self.verify_ids(plain, where, path)
        return where

    def verify_ids(self, plain, where, path):
        """Hold every chunk against its keyed id: b3sum reads files, so each becomes one for a moment."""
        parts = os.path.join(self.repo.work, "parts")
        shutil.rmtree(parts, ignore_errors=True)
        os.mkdir(parts)
        left = list(where)
        with open(plain, "rb") as f:
            for i, cid in enumerate(left):
                f.seek(where[cid][0])
                with open(os.path.join(parts, str(i)), "wb") as out:
                    out.write(f.read(where[cid][1]))
        todo = list(range(len(left)))
        for key in self.repo.chunk_keys:
            sums = b3sum([os.path.join(parts, str(i)) for i in todo], key)
            todo = [i for i, s in zip(todo, sums) if s != left[i].hex()]
            if not todo:
                break
        shutil.rmtree(parts)
        if todo:
            raise Damaged("%s: chunk %s does not match its id" % (path, left[todo[0]].hex()))

    def load(self, cid):
        pack, _ = self.find(cid)
        at, size = self.open_pack(pack)[cid]
        with open(os.path.join(self.repo.work, "plain"), "rb") as f:
            f.seek(at)
            return f.read(size)


def slots_of(chunks, entry):
    """The slots of a file, in order, listed in the entry, or root by root, leaf by leaf: (id, pieces). Without pieces
    the id is of a chunk; else (chunk id, offset in it, length) of each piece, and the id is that of all joined."""
    for h in entry.get("chunks") or []:
        yield bytes.fromhex(h), []
    for root in entry.get("maps") or []:
        leaves = chunks.load(bytes.fromhex(root))
        for i in range(0, len(leaves), 32):
            yield from read_leaf(chunks.load(leaves[i : i + 32]))


def read_leaf(leaf):
    slots, sources, mosaics = struct.unpack_from("<HHH", leaf)
    at = 6 + 32 * slots
    table = [leaf[i : i + 32] for i in range(at, at + 32 * sources, 32)]
    at += 32 * sources
    joined = {}
    for _ in range(mosaics):
        slot, count = struct.unpack_from("<HB", leaf, at)
        at += 3
        joined[slot] = []
        for _ in range(count):
            row, off, n = struct.unpack_from("<HBB", leaf, at)
            joined[slot].append((table[row], 512 * off, 512 * n))
            at += 4
    if at != len(leaf):
        raise Damaged("a leaf has %d bytes, and describes %d" % (len(leaf), at))
    for i in range(slots):
        yield leaf[6 + 32 * i : 38 + 32 * i], joined.get(i, [])


def tree_lines(chunks, tree):
    rest = b""
    for h in tree:
        rest += chunks.load(bytes.fromhex(h))
        *whole, rest = rest.split(b"\n")
        yield from whole
    if rest:
        raise Damaged("the tree ends inside an entry")


def inside(out, path):
    """The place of an entry; one that would leave the directory is refused."""
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise Damaged("entry %r leads out of the directory" % path)
    return os.path.join(out, path)


# --- restoring -------------------------------------------------------------------------------------------


def restore_snapshot(repo, man, out):
    chunks = Chunks(repo)
    entries = os.path.join(repo.work, "entries")
    with open(entries, "wb") as f:
        for line in tree_lines(chunks, man["tree"]):
            f.write(line + b"\n")
    count = 0
    with open(entries, "rb") as f:
        chunks.db.execute("begin")
        for line in f:
            plan_entry(chunks, json.loads(line), out)
            count += 1
        chunks.db.execute("commit")
    if count != man["entries"]:
        raise Damaged("the tree has %d entries, the manifest says %d" % (count, man["entries"]))
    write_chunks(chunks, out)
    verify_mosaics(chunks)
    verify_files(entries, out)
    finish_metadata(entries, out)
    return count


def plan_entry(chunks, e, out):
    """Make the directory, link or empty file, and note where each chunk goes."""
    path = inside(out, e["path"])
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if e["mode"] & DIR:
        os.makedirs(path, exist_ok=True)
        return
    if e["mode"] & LINK:
        os.symlink(e["link"], path)
        return
    n = chunks.db.execute("insert into file(path) values(?)", (path,)).lastrowid
    off = 0
    for cid, pieces in slots_of(chunks, e):
        begin = off
        for source, skip, size in pieces or [(cid, 0, None)]:
            pack, plain = chunks.find(source)
            size = plain if size is None else size
            if skip + size > plain:
                raise Damaged("%s: a slot takes byte %d of a chunk of %d" % (e["path"], skip + size, plain))
            chunks.db.execute("insert into want values(?, ?, ?, ?, ?, ?)", (pack, source, n, off, skip, size))
            off += size
        if pieces:
            chunks.db.execute("insert into mosaic values(?, ?, ?, ?)", (n, begin, off - begin, cid))
    if off != e["size"]:
        raise Damaged("%s: its chunks have %d bytes, the entry says %d" % (e["path"], off, e["size"]))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600), "wb") as f:
        f.truncate(e["size"])


def write_chunks(chunks, out):
    """Pack by pack, so that each is opened once."""
    chunks.db.execute("create index want_pack on want(pack, file, off)")
    packs = [n for (n,) in chunks.db.execute("select distinct pack from want")]
    for done, n in enumerate(packs):
        where = chunks.open_pack(n)
        with open(os.path.join(chunks.repo.work, "plain"), "rb") as src:
            f, last = None, None
            rows = chunks.db.execute("select file.path, want.off, want.id, want.skip, want.size from want join file on file.n = want.file where pack = ? order by file, off", (n,))
            for path, off, cid, skip, size in rows:
                if path != last:
                    if f:
                        f.close()
                    f, last = open(path, "r+b"), path
                src.seek(where[cid][0] + skip)
                f.seek(off)
                f.write(src.read(size))
            if f:
                f.close()
        say("pack %d of %d" % (done + 1, len(packs)))


def verify_mosaics(chunks):
    """Hold what was joined from pieces against its keyed id, 500 slots at a time."""
    rows = chunks.db.execute("select file.path, mosaic.off, mosaic.size, mosaic.id from mosaic join file on file.n = mosaic.file")
    while True:
        batch = rows.fetchmany(500)
        if not batch:
            return
        where, at = {}, 0
        joined = os.path.join(chunks.repo.work, "joined")
        with open(joined, "wb") as out:
            for path, off, size, cid in batch:
                with open(path, "rb") as f:
                    f.seek(off)
                    out.write(f.read(size))
                where[cid], at = (at, size), at + size
        chunks.verify_ids(joined, where, "the slots of " + batch[0][0] + " and others")


def verify_files(entries, out):
    batch = []

    def flush():
        for (path, want), got in zip(batch, b3sum([p for p, _ in batch])):
            if got != want:
                raise Damaged("%s: digest %s, the entry says %s" % (path, got, want))
        batch.clear()

    with open(entries, "rb") as f:
        for line in f:
            e = json.loads(line)
            if e.get("blake3"):
                batch.append((inside(out, e["path"]), e["blake3"]))
                if len(batch) >= 500:
                    flush()
    flush()


def finish_metadata(entries, out):
    """Mode, owner and time; directories in reverse, so that their times stay."""
    dirs = []
    with open(entries, "rb") as f:
        for line in f:
            e = json.loads(line)
            if e["mode"] & DIR:
                dirs.append(line)
            else:
                set_metadata(inside(out, e["path"]), e)
    for line in reversed(dirs):
        e = json.loads(line)
        set_metadata(inside(out, e["path"]), e)


def set_metadata(path, e):
    link = bool(e["mode"] & LINK)
    if os.geteuid() == 0:
        os.chown(path, e["uid"], e["gid"], follow_symlinks=False)
    if not link:
        bits = e["mode"] & 0o777
        for go, unix in ((SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)):
            bits |= unix if e["mode"] & go else 0
        os.chmod(path, bits)
    t = parse_time(e["mtime"])
    os.utime(path, (t, t), follow_symlinks=False)


# --- WAL -------------------------------------------------------------------------------------------------


def lsn(s):
    hi, lo = s.split("/")
    return int(hi, 16) << 32 | int(lo, 16)


def restore_wal(repo, store, out):
    """Whole segments; else what live ranges hold of one, padded with zeros; and timeline histories."""
    os.makedirs(out, exist_ok=True)
    live, count = {}, 0
    for name in repo.names("wal/" + store):
        if not name.endswith(".meta"):
            continue
        side = repo.signed("sidecar", name)
        if "/live/" in name:
            live.setdefault((name.split("/")[2], side["name"]), []).append(side)
            continue
        kind = repo.meta if name.endswith(".history.meta") else repo.data
        read_body(repo, side, kind, os.path.join(out, side["name"]))
        count += 1
    for (_, segment), sides in sorted(live.items()):
        if not os.path.exists(os.path.join(out, segment)):
            assemble(repo, segment, sides, out)
            count += 1
    return count


def read_body(repo, side, identity, out):
    decompress(identity, repo.path(side["body"]), out)
    if os.path.getsize(out) != side["size"] or b3sum([out])[0] != side["blake3"]:
        raise Damaged("%s does not match its sidecar" % side["body"])


def assemble(repo, segment, sides, out):
    size = sides[0]["segment_size"]
    per = (1 << 32) // size
    start = (int(segment[8:16], 16) * per + int(segment[16:24], 16)) * size
    end, part = start, os.path.join(repo.work, "part")
    with open(os.path.join(out, segment), "wb") as f:
        for side in sorted(sides, key=lambda s: lsn(s["start"])):
            if lsn(side["start"]) > end:
                raise Damaged("segment %s: the live ranges have a hole at %X" % (segment, end))
            if lsn(side["end"]) <= end:
                continue
            read_body(repo, side, repo.data, part)
            with open(part, "rb") as src:
                src.seek(end - lsn(side["start"]))
                shutil.copyfileobj(src, f)
            end = lsn(side["end"])
        f.truncate(size)


# --- command line ----------------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr)


def warn(text):
    say("warning: " + text)


def choose(repo, store, wanted):
    names = sorted(repo.names("snap/" + store))
    if not names:
        raise Damaged("store %s has no snapshot here" % store)
    mans = []
    for name in names:
        if wanted and name.rsplit("/", 1)[1] != wanted:
            continue
        try:
            man = repo.signed("manifest", name)
        except Damaged as e:
            warn(str(e))
            continue
        if man["format"] != 1:
            raise Damaged("%s has format %d; this script reads format 1" % (name, man["format"]))
        mans.append(man)
    if not mans:
        raise Damaged("no snapshot %s of store %s is valid" % (wanted or "", store))
    return max(mans, key=lambda m: (parse_time(m["started"]), m["id"]))


def run(args, work):
    repo = Repository(args.repo, args.identity, work)
    man = choose(repo, args.store, args.snapshot)
    say("snapshot %s, taken %s by %s" % (man["id"], man["started"], man["host"]))
    data = os.path.join(args.out, "data")
    if os.path.exists(data) and os.listdir(data):
        raise Damaged("%s is not empty" % data)
    os.makedirs(data, mode=0o700, exist_ok=True)
    with open(os.path.join(args.out, "manifest.json"), "w") as f:
        json.dump(man, f, indent=1)
    n = restore_snapshot(repo, man, data)
    say("restored %d entries to %s" % (n, data))
    if not args.no_wal:
        w = restore_wal(repo, args.store, os.path.join(args.out, "wal"))
        say("restored %d WAL files to %s" % (w, os.path.join(args.out, "wal")))


def main():
    p = argparse.ArgumentParser(description="Restore from a relight repository with age, zstd and b3sum.")
    p.add_argument("--repo", required=True, help="directory of the repository (copy a bucket to one first)")
    p.add_argument("--identity", required=True, help="file with the recovery identity (AGE-SECRET-KEY-1...)")
    p.add_argument("--store", required=True, help="name of the store")
    p.add_argument("--snapshot", default="", help="id of the snapshot; the newest when left out")
    p.add_argument("--out", required=True, help="directory to fill: data/, wal/ and manifest.json")
    p.add_argument("--no-wal", action="store_true", help="leave the WAL alone")
    p.add_argument("--work", default=None, help="directory for temporary files; a few hundred MB")
    args = p.parse_args()
    for name in ("age", "zstd", "b3sum"):
        if not shutil.which(name):
            say("error: the tool %s is not installed" % name)
            return 2
    os.makedirs(args.out, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            run(args, work)
    except (Damaged, OSError, ValueError, KeyError) as e:
        say("error: %s" % e)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
