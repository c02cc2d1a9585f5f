"""Keep what was measured of steps on classes of boards in SQLite, for the planners of placements.

A profile is made once for each class of boards (Hadidi, section 4.4.2). Several reporters may have measured the same step.
What counts is, in this order: a file that an operator imported, then the workers' profiles, then the times with which
workers answered; among several of one kind the median, so that one worker that lies changes nothing where two others do
not.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.board_facts import BoardFacts
from hyps.runtime.profiling.profile_file import ProfiledStep, StepProfileFile, ThreadTimes
from hyps.runtime.profiling.step_content import StepContent
from hyps.runtime.profiling.step_measurement import StepMeasurement, content_of

#: The sources of times: a file that an operator imported, a worker's profile, a worker's answers.
TimesSource = Literal["file", "worker", "answers"]
_RANKS: Final[Sequence[TimesSource]] = ("file", "worker", "answers")
#: The name of the reporter of imported files.
OPERATOR: Final = ""
#: The most times that are kept of one reporter: the latest. A thousand steps with eight thread counts fit.
MOST_TIMES: Final = 10_000
#: The columns of the table of steps, which are fields of `ProfiledStep`.
_STEP_FIELDS = ("key", "name", "kind", "multiply_adds", "weight_bytes", "tensor_bytes", "operators")
_TABLES_VERSION = 1
_TABLES = """
create table if not exists steps (
    key text primary key, name text not null, kind text not null, multiply_adds integer not null,
    weight_bytes integer not null, tensor_bytes integer not null, operators integer not null);
create table if not exists boards (board_class text primary key, facts text not null);
create table if not exists times (
    key text not null references steps, board_class text not null, threads integer not null, source text not null,
    reporter text not null, median real not null, times text not null, changed real not null,
    primary key (key, board_class, threads, source, reporter));
create index if not exists reporters on times (reporter, changed);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTimes:
    """The times of one step on one class of boards, from one reporter."""

    name: str
    content: StepContent
    board_class: str
    times: ThreadTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownClass:
    """A class of boards in the database: its numbers of steps and of reporters, and the time of the last change."""

    board_class: str
    steps: int
    reporters: int
    sources: tuple[TimesSource, ...]
    changed: float


class ProfileDatabase:
    """The database in the file ``path``, which is made if it is not there. Use it on the thread that made it.

    Methods raise `ProfileError` where the file cannot be read or written, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            self._base = sqlite3.connect(path, isolation_level=None)
            (version,) = self._base.execute("pragma user_version").fetchone()
            (tables,) = self._base.execute("select count(*) from sqlite_master").fetchone()
            if tables and version != _TABLES_VERSION:
                raise ProfileError(f"{path} is no profile database of this version of HyPS", "give another --profiles")
            self._base.execute("pragma journal_mode = wal")
            self._base.execute("pragma synchronous = normal")  # a power cut may lose what was measured last
            self._base.execute(f"pragma user_version = {_TABLES_VERSION}")
            self._base.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def import_file(self, profile: StepProfileFile) -> int:
        """Add an operator's step profile; return the number of times that it holds."""
        reported = [
            ReportedTimes(name=step.name, content=content_of(step), board_class=profile.board_class, times=times)
            for step in profile.steps
            for times in step.times
        ]
        self.add(OPERATOR, "file", reported, profile.board)
        return len(reported)

    def add(
        self, reporter: str, source: TimesSource, reported: Iterable[ReportedTimes], board: BoardFacts | None = None
    ) -> None:
        """Add what one reporter measured, in place of what it said before of the same steps.

        Of a worker the latest `MOST_TIMES` times are kept. ``board`` are the facts of the boards.
        """
        now = time.time()
        with self._told(), self._transaction():
            for each in reported:
                content = each.content
                sizes = content.kind, content.multiply_adds, content.weight_bytes, content.tensor_bytes, content.operators
                self._base.execute(
                    "insert or ignore into steps values (?, ?, ?, ?, ?, ?, ?)",
                    (content.key, each.name, *sizes),
                )
                if board:
                    facts = msgspec.json.encode(board).decode()
                    self._base.execute("insert or ignore into boards values (?, ?)", (each.board_class, facts))
                measured = each.times.run_s.median, msgspec.json.encode(each.times).decode()
                self._base.execute(
                    "insert or replace into times values (?, ?, ?, ?, ?, ?, ?, ?)",
                    (content.key, each.board_class, each.times.threads, source, reporter, *measured, now),
                )
            if reporter != OPERATOR:
                self._base.execute(
                    "delete from times where reporter = ? and rowid not in "
                    "(select rowid from times where reporter = ? order by changed desc, rowid desc limit ?)",
                    (reporter, reporter, MOST_TIMES),
                )

    def remove(self, board_class: str) -> bool:
        """Forget a class of boards; return whether it was known."""
        with self._told(), self._transaction():
            found = self._base.execute("delete from times where board_class = ?", (board_class,)).rowcount
            self._base.execute("delete from boards where board_class = ?", (board_class,))
            self._base.execute("delete from steps where key not in (select key from times)")
        return found > 0

    def classes(self) -> list[KnownClass]:
        """Return the classes of boards, sorted by name."""
        query = (
            "select board_class, count(distinct key), count(distinct reporter), group_concat(distinct source), max(changed) "
            "from times group by board_class order by board_class"
        )
        with self._told():
            rows = self._base.execute(query).fetchall()
        return [
            KnownClass(
                board_class=name,
                steps=steps,
                reporters=reporters,
                sources=tuple(source for source in _RANKS if source in sources.split(",")),
                changed=changed,
            )
            for name, steps, reporters, sources, changed in rows
        ]

    def measurements(self, board_class: str | None = None) -> list[StepMeasurement]:
        """Return what counts of each step, class of boards and number of threads; of one class, if it is named."""
        return [
            StepMeasurement(
                content=each.content, board_class=each.board_class, threads=each.times.threads, run_s=each.times.run_s
            )
            for each in self._counting(board_class)
        ]

    def answers_of(self, reporter: str, board_class: str, since: float) -> dict[tuple[str, int], float]:
        """Return the median seconds of a worker's answers since then (by `time.time`), by step and number of threads."""
        query = "select key, threads, median from times where (reporter, board_class, source) = (?, ?, ?) and changed >= ?"
        with self._told():
            rows = self._base.execute(query, (reporter, board_class, "answers", since)).fetchall()
        return {(str(key), int(threads)): float(median) for key, threads, median in rows}

    def export_file(self, board_class: str) -> StepProfileFile:
        """Return what counts of one class of boards as a step profile. Raises `ProfileError` for an unknown class."""
        steps: dict[str, list[ReportedTimes]] = {}
        for each in self._counting(board_class):
            steps.setdefault(each.content.key, []).append(each)
        with self._told():
            facts = self._base.execute("select facts from boards where board_class = ?", (board_class,)).fetchone()
        if not steps or not facts:
            raise ProfileError(f"{self._path} knows no class of boards {board_class!r}", "list them: hyps-manager profiles")
        return StepProfileFile(
            version=1,
            created_by="hyps-manager profiles",
            bundle="0" * 64,
            network="",
            board_class=board_class,
            board=msgspec.json.decode(facts[0], type=BoardFacts),
            steps=tuple(
                ProfiledStep(
                    name=times[0].name,
                    key=key,
                    kind=times[0].content.kind,
                    multiply_adds=times[0].content.multiply_adds,
                    weight_bytes=times[0].content.weight_bytes,
                    tensor_bytes=times[0].content.tensor_bytes,
                    operators=times[0].content.operators,
                    times=tuple(each.times for each in times),
                )
                for key, times in steps.items()
            ),
        )

    def _counting(self, board_class: str | None) -> Iterator[ReportedTimes]:
        """Yield, of several reporters' times, the one that counts: the lower median of the best source."""
        query = (
            "select key, name, kind, multiply_adds, weight_bytes, tensor_bytes, operators, board_class, threads, source, "
            "times from times join steps using (key) where board_class = coalesce(?, board_class) "
            "order by board_class, steps.rowid, threads, median"
        )
        with self._told():
            rows = self._base.execute(query, (board_class,)).fetchall()
        groups: dict[tuple[str, str, int], dict[str, list[tuple[object, ...]]]] = {}
        for row in rows:
            groups.setdefault((row[7], row[0], row[8]), {}).setdefault(row[9], []).append(row)
        for by_source in groups.values():
            of_best = next(by_source[source] for source in _RANKS if source in by_source)
            yield self._reported(of_best[(len(of_best) - 1) // 2])

    def _reported(self, row: tuple[object, ...]) -> ReportedTimes:
        *content, board_class, _, _, times = row
        with self._told():
            fields = dict(zip(_STEP_FIELDS, content, strict=True))
            step = msgspec.convert(fields | {"times": [msgspec.json.decode(str(times))]}, ProfiledStep)
        return ReportedTimes(name=step.name, content=content_of(step), board_class=str(board_class), times=step.times[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._base.execute("rollback")
            raise
        self._base.execute("commit")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise `ProfileError` instead of SQLite's errors, and for invalid values in a file that was changed."""
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
            raise ProfileError(f"cannot use the profile database {self._path}: {error}", "give another --profiles") from None
