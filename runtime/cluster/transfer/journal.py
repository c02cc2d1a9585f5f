"""What the manager must not forget: accepted jobs and the tensors that later steps need, on disk before it says so.

SQLite in WAL mode says which there are; large ones lie in files named by their digests, small ones beside. What could be
worked out anew, such as that a share is done whose outputs are there, does not wait for the disk. The hub may forget what
it has acknowledged (it does, when it is killed), the manager may be killed at any moment: a job goes on from its last
tensors (Kaboubi, section 3.3.4.1: stored intermediate results are backups).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.errors import OutputError

_SCHEMA = """
create table if not exists jobs (
    job text primary key, client text not null, state text not null, reason text not null, changed real not null);
create table if not exists tensors (
    job text not null references jobs, name text not null, digest blob not null, primary key (job, name));
create table if not exists small (digest blob primary key, data blob not null);
create table if not exists shares (job text not null references jobs, share integer not null, primary key (job, share));
create index if not exists digests on tensors (digest);
create index if not exists states on jobs (state);
create table if not exists counter (only integer primary key check (only = 0), value integer not null);
insert or ignore into counter values (0, 0);
create table if not exists plan (only integer primary key check (only = 0), bundle text not null, runs text not null);
"""
#: Tensors up to this many bytes lie in the database: one wait for the disk instead of three.
_SMALL_BYTES = 256 << 10
_Statement = tuple[str, tuple[object, ...]]
#: So many of the last jobs are known to be done, though nothing else of them is.
_OLD: _Statement = (
    "delete from jobs where state = 'delivered' and rowid < (select max(rowid) from jobs) - 10000",
    (),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it was written down: ``state`` is open, done or failed; tensors by name; shares that are done."""

    job: str
    client: str
    state: str
    reason: str
    tensors: Mapping[str, bytes]
    shares: frozenset[int]


class Journal:
    """The journal in ``folder``, made when it is not there. Each method returns when all is on disk.

    Raises `OutputError` where that fails.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "tensors"
        try:
            self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._base = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
            self._base.execute("pragma journal_mode = wal")
            self._base.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot keep a journal in {folder}: {error}") from None
        self._dropped: set[bytes] = set()
        self._base.execute("delete from small where digest not in (select digest from tensors)")
        known = {digest.hex() for (digest,) in self._base.execute("select distinct digest from tensors")}
        for path in self._blobs.iterdir():  # what was written when the manager was killed
            if path.name not in known:
                path.unlink()

    def close(self) -> None:
        """Close the files."""
        self._base.close()

    def open_jobs(self) -> list[JobRecord]:
        """The jobs that are still to be answered, the oldest first."""
        names = [name for (name,) in self._base.execute("select job from jobs where state = 'open' order by rowid")]
        return [record for name in names if (record := self.job(name))]

    def undelivered(self, seconds: float) -> list[str]:
        """Jobs whose result nobody has taken for so long."""
        found = "select job from jobs where state in ('done', 'failed') and changed < ?"
        return [name for (name,) in self._base.execute(found, (time.time() - seconds,))]

    def job(self, job: str) -> JobRecord | None:
        """One job."""
        row = self._base.execute("select client, state, reason from jobs where job = ?", (job,)).fetchone()
        if row is None:
            return None
        tensors = dict(self._base.execute("select name, digest from tensors where job = ?", (job,)).fetchall())
        shares = frozenset(share for (share,) in self._base.execute("select share from shares where job = ?", (job,)))
        client, state, reason = row
        return JobRecord(job=job, client=client, state=state, reason=reason, tensors=tensors, shares=shares)

    def plan(self) -> tuple[str, str] | None:
        """The bundle's sha256 and the runs that the open jobs' shares are numbered by."""
        row = self._base.execute("select bundle, runs from plan").fetchone()
        return (row[0], row[1]) if row else None

    def count(self) -> int:
        """A number that is larger every time, whoever was killed meanwhile."""
        self._write([("update counter set value = value + 1", ())])
        value: int = self._base.execute("select value from counter").fetchone()[0]
        return value

    def set_plan(self, bundle: str, runs: str) -> None:
        """Remember them."""
        self._write([("insert or replace into plan values (0, ?, ?)", (bundle, runs))])

    def accept(self, job: str, client: str, tensors: Mapping[str, bytes | bytearray]) -> dict[str, bytes]:
        """A new job with its inputs; their digests."""
        digests = {name: digest_of(data) for name, data in tensors.items()}
        statements: list[_Statement] = [("insert into jobs values (?, ?, 'open', '', ?)", (job, client, time.time()))]
        for name, data in tensors.items():
            statements += self._keep(job, name, digests[name], data)
        self._write(statements)
        return digests

    def arrived(self, job: str, name: str, digest: bytes, data: bytes | bytearray) -> None:
        """A tensor that a share made, and its digest."""
        self._write(self._keep(job, name, digest, data))

    def complete(self, job: str, share: int, released: Iterable[str]) -> None:
        """A share is done; its outputs have arrived, and nobody needs what is ``released``."""
        dropped = self._release(job, released)
        self._write([("insert or ignore into shares values (?, ?)", (job, share)), *dropped], wait=False)
        self._sweep()

    def finish(self, job: str, state: str, reason: str = "") -> None:
        """A job is done or failed; its result is kept until it is forgotten."""
        update = "update jobs set state = ?, reason = ?, changed = ? where job = ?"
        self._write([(update, (state, reason, time.time(), job))], wait=state != "done")

    def forget(self, job: str) -> None:
        """A job's result was delivered: its tensors go; that it was done stays, for it is not done twice."""
        names = [name for (name,) in self._base.execute("select name from tensors where job = ?", (job,))]
        update = ("update jobs set state = 'delivered' where job = ?", (job,))
        dropped = self._release(job, names)
        self._write([*dropped, ("delete from shares where job = ?", (job,)), update, _OLD], wait=False)
        self._sweep()

    def read(self, digest: bytes) -> bytes:
        """A tensor's bytes; raises `OutputError` when they were changed."""
        row = self._base.execute("select data from small where digest = ?", (digest,)).fetchone()
        path = self._blobs / digest.hex()
        try:
            data: bytes = row[0] if row else path.read_bytes()
        except OSError as error:
            raise OutputError(f"cannot read the journal's {path}: {error.strerror}") from None
        if digest_of(data) != digest:
            raise OutputError(f"the journal's {path} was changed")
        return data

    def _keep(self, job: str, name: str, digest: bytes, data: bytes | bytearray) -> list[_Statement]:
        """Write a large tensor's file; the statements that are to follow."""
        named: _Statement = ("insert or replace into tensors values (?, ?, ?)", (job, name, digest))
        if len(data) <= _SMALL_BYTES:
            return [named, ("insert or ignore into small values (?, ?)", (digest, data))]
        path = self._blobs / digest.hex()
        try:
            if not path.exists():
                partial = path.with_suffix(".part")
                with partial.open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(path)
                _sync(self._blobs)
        except OSError as error:
            raise OutputError(f"cannot write the journal's {path}: {error.strerror}") from None
        return [named]

    def _release(self, job: str, names: Iterable[str]) -> list[_Statement]:
        """The statements that drop a job's tensors; `_sweep` drops their files when no other job has the same."""
        statements: list[_Statement] = []
        for name in names:
            row = self._base.execute("select digest from tensors where job = ? and name = ?", (job, name)).fetchone()
            if row:
                self._dropped.add(row[0])
                statements.append(("delete from tensors where job = ? and name = ?", (job, name)))
        return statements

    def _sweep(self) -> None:
        for digest in self._dropped:
            if not self._base.execute("select 1 from tensors where digest = ? limit 1", (digest,)).fetchone():
                self._write([("delete from small where digest = ?", (digest,))], wait=False)
                (self._blobs / digest.hex()).unlink(missing_ok=True)
        self._dropped.clear()

    def _write(self, statements: Iterable[_Statement], *, wait: bool = True) -> None:
        """One transaction; a process that is killed does not undo it, a power cut does not unless it was to ``wait``."""
        try:
            self._base.execute(f"pragma synchronous = {'full' if wait else 'normal'}")
            self._base.execute("begin immediate")
            for statement, values in statements:
                self._base.execute(statement, values)
            self._base.execute("commit")
        except sqlite3.Error as error:
            raise OutputError(f"cannot write the journal: {error}") from None


def _sync(folder: Path) -> None:
    """Have a folder's entries written, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
