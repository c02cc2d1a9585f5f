"""Keep a manager's accepted jobs, and the tensors that later steps need, on disk before they are acknowledged.

SQLite in WAL mode lists them; large tensors lie in files named by their digests, small ones in the database. Derivable
facts, such as that a sub-bundle is done if its outputs are there, do not wait for the disk. A killed hub forgets what it has
acknowledged, and a manager may be killed at any moment: either way, a job goes on from its last tensors (Kaboubi, section
3.3.4.1: stored intermediate results are backups).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.errors import OutputError

#: The version of the tables; a journal of another version is refused.
_VERSION = 4
_SCHEMA = """
create table if not exists jobs (
    job text primary key, client text not null, state text not null, reason text not null, changed real not null,
    generation integer not null, exact integer not null);
create table if not exists tensors (
    job text not null references jobs, name text not null, digest blob not null, primary key (job, name));
create table if not exists small (digest blob primary key, data blob not null);
create table if not exists sub_bundles (
    job text not null references jobs, sub_bundle integer not null, primary key (job, sub_bundle));
create index if not exists digests on tensors (digest);
create index if not exists states on jobs (state);
create table if not exists counter (only integer primary key check (only = 0), value integer not null);
insert or ignore into counter values (0, 0);
create table if not exists plan (only integer primary key check (only = 0), bundle text not null, runs text not null);
"""
#: Tensors up to this size lie in the database: one wait for the disk instead of three.
_SMALL_BYTES = 256 << 10
_Statement = tuple[str, tuple[object, ...]]
#: For the last 10,000 delivered jobs, the journal keeps only the fact that they are done.
_FORGET_OLD: _Statement = (
    "delete from jobs where state = 'delivered' and rowid < (select max(rowid) from jobs) - 10000",
    (),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job in the journal, its tensors' digests, and completed sub-bundles; ``state``: open, done, failed or delivered.

    ``generation`` is that of the placement whose sub-bundles compute it. Nothing of an ``exact`` one's result is decoded.
    """

    job: str
    client: str
    state: str
    reason: str
    tensors: Mapping[str, bytes]
    sub_bundles: frozenset[int]
    generation: int = 0
    exact: bool = False


class DamagedTensor(OutputError):
    """A tensor in the journal cannot be read, or was changed on the disk."""


class Journal:
    """The journal in ``folder``, which is made if it is not there. A method returns when its changes are on disk.

    Raises `OutputError` if that fails, or if the journal is of another version. Use it on the thread that made it.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "tensors"
        try:
            self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._base = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
            self._base.execute("pragma journal_mode = wal")
            self._create_tables(folder)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot keep a journal in {folder}: {error}") from None
        self._dropped: set[bytes] = set()
        self._base.execute("delete from small where digest not in (select digest from tensors)")
        known = {digest.hex() for (digest,) in self._base.execute("select distinct digest from tensors")}
        for path in self._blobs.iterdir():  # files that a killed manager was writing
            if path.name not in known:
                path.unlink()

    def _create_tables(self, folder: Path) -> None:
        (version,) = self._base.execute("pragma user_version").fetchone()
        (tables,) = self._base.execute("select count(*) from sqlite_master").fetchone()
        if tables and version != _VERSION:
            raise OutputError(f"the journal in {folder} is of another version of HyPS; remove it, or give another --journal")
        self._base.execute(f"pragma user_version = {_VERSION}")  # first: a manager may be killed before the next line
        self._base.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the journal's files."""
        self._base.close()

    def open_jobs(self) -> list[JobRecord]:
        """Return the jobs that are not answered yet, the oldest first."""
        names = [name for (name,) in self._rows("select job from jobs where state = 'open' order by rowid")]
        return [record for name in names if (record := self.job(name))]

    def undelivered(self, seconds: float) -> list[str]:
        """Return the jobs whose result no client has taken for this many seconds."""
        query = "select job from jobs where state in ('done', 'failed') and changed < ?"
        return [name for (name,) in self._rows(query, time.time() - seconds)]

    def job(self, job: str) -> JobRecord | None:
        """Return a job, or None if the journal does not know it."""
        rows = self._rows("select client, state, reason, generation, exact from jobs where job = ?", job)
        if not rows:
            return None
        tensors: dict[str, bytes] = dict(self._rows("select name, digest from tensors where job = ?", job))
        completed = self._rows("select sub_bundle from sub_bundles where job = ?", job)
        sub_bundles = frozenset(number for (number,) in completed)
        client, state, reason, generation, exact = rows[0]
        return JobRecord(
            job=job,
            client=client,
            state=state,
            reason=reason,
            tensors=tensors,
            sub_bundles=sub_bundles,
            generation=generation,
            exact=bool(exact),
        )

    def plan(self) -> tuple[str, str] | None:
        """Return the bundle's sha256 and the placement whose runs number the open jobs' sub-bundles, or None."""
        rows = self._rows("select bundle, runs from plan")
        return (rows[0][0], rows[0][1]) if rows else None

    def count(self) -> int:
        """Return a number that is larger every time, even if the manager was killed meanwhile."""
        self._write([("update counter set value = value + 1", ())])
        ((value,),) = self._rows("select value from counter")
        return int(value)

    def set_plan(self, bundle: str, runs: str) -> None:
        """Write down a bundle's sha256 and its placement."""
        self._write([("insert or replace into plan values (0, ?, ?)", (bundle, runs))])

    def accept(
        self,
        job: str,
        client: str,
        tensors: Mapping[str, bytes | bytearray],
        generation: int = 0,
        *,
        exact: bool = False,
    ) -> dict[str, bytes]:
        """Write down a new job with its inputs, and return their digests."""
        digests = {name: digest_of(data) for name, data in tensors.items()}
        statements: list[_Statement] = [
            ("insert into jobs values (?, ?, 'open', '', ?, ?, ?)", (job, client, time.time(), generation, exact))
        ]
        for name, data in tensors.items():
            statements += self._record(job, name, digests[name], data)
        self._write(statements)
        return digests

    def keep(self, job: str, name: str, digest: bytes, data: bytes | bytearray) -> None:
        """Write down an output of a sub-bundle."""
        self._write(self._record(job, name, digest, data))

    def complete(self, job: str, sub_bundle: int, released: Iterable[str]) -> None:
        """Write down that a sub-bundle is done, and drop the ``released`` tensors."""
        dropped = self._release(job, released)
        self._write([("insert or ignore into sub_bundles values (?, ?)", (job, sub_bundle)), *dropped], wait=False)
        self._sweep()

    def note(self, job: str, text: str) -> None:
        """Write down what is to be said of a job's result; `JobRecord.reason` has it when the job is done."""
        self._write([("update jobs set reason = ? where job = ?", (text, job))])

    def finish(self, job: str, state: str, reason: str | None = None) -> None:
        """Write down that a job is done or has failed; its result is kept until `forget`."""
        update = "update jobs set state = ?, reason = coalesce(?, reason), changed = ? where job = ?"
        self._write([(update, (state, reason, time.time(), job))], wait=state != "done")

    def forget(self, job: str) -> None:
        """Drop the tensors of a job whose result was delivered; the job itself stays, so that it is not done twice."""
        names = [name for (name,) in self._rows("select name from tensors where job = ?", job)]
        update = ("update jobs set state = 'delivered' where job = ?", (job,))
        dropped = self._release(job, names)
        self._write([*dropped, ("delete from sub_bundles where job = ?", (job,)), update, _FORGET_OLD], wait=False)
        self._sweep()

    def read(self, digest: bytes) -> bytes:
        """Return a tensor's bytes. Raises `DamagedTensor` if they cannot be read, or are not those that were written.

        Damaged bytes are deleted, so that another job that has the same tensor writes it again.
        """
        path = self._blobs / digest.hex()
        try:
            rows = self._rows("select data from small where digest = ?", digest)
            data: bytes = rows[0][0] if rows else path.read_bytes()
        except OSError as error:
            raise DamagedTensor(f"cannot read the journal's {path}: {error.strerror}") from None
        if digest_of(data) != digest:
            self._write([("delete from small where digest = ?", (digest,))])
            path.unlink(missing_ok=True)
            raise DamagedTensor(f"the journal's {path} was changed")
        return data

    def _rows(self, query: str, *values: object) -> list[Any]:
        """Return what a query finds."""
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OutputError(f"cannot read the journal: {error}", "remove its folder, or give another --journal") from None

    def _record(self, job: str, name: str, digest: bytes, data: bytes | bytearray) -> list[_Statement]:
        """Write a large tensor's file; return the statements that record the tensor."""
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
        """Return the statements that drop a job's tensors; `_sweep` drops their data if no other job has the same."""
        statements: list[_Statement] = []
        for name in names:
            for (digest,) in self._rows("select digest from tensors where job = ? and name = ?", job, name):
                self._dropped.add(digest)
                statements.append(("delete from tensors where job = ? and name = ?", (job, name)))
        return statements

    def _sweep(self) -> None:
        for digest in self._dropped:
            if not self._rows("select 1 from tensors where digest = ? limit 1", digest):
                self._write([("delete from small where digest = ?", (digest,))], wait=False)
                (self._blobs / digest.hex()).unlink(missing_ok=True)
        self._dropped.clear()

    def _write(self, statements: Iterable[_Statement], *, wait: bool = True) -> None:
        """Run one transaction: it survives a killed process, and with ``wait`` a power cut, too."""
        try:
            self._base.execute(f"pragma synchronous = {'full' if wait else 'normal'}")
            self._base.execute("begin immediate")
            for statement, values in statements:
                self._base.execute(statement, values)
            self._base.execute("commit")
        except sqlite3.Error as error:
            raise OutputError(f"cannot write the journal: {error}") from None


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
