"""Test that the journal's content survives ``kill -9``, and that it drops what is not needed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import OutputError

JOB, OTHER = "1" * 32, "2" * 32
LARGE = bytes(1_000_000)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "tensors").iterdir())


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_jobs_life(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path)
    digests = journal.accept(JOB, "c", {"x": content})
    assert digests == {"x": digest_of(content)}
    made = digest_of(content + b"a")
    journal.keep(JOB, "a", made, content + b"a")
    journal.complete(JOB, 0, ["x"])
    journal.close()
    journal = Journal(tmp_path)
    (record,) = journal.open_jobs()
    assert (record.client, dict(record.tensors), set(record.sub_bundles)) == ("c", {"a": made}, {0})
    assert journal.read(made) == content + b"a"
    journal.finish(JOB, "done")
    assert journal.open_jobs() == []
    assert (journal.undelivered(60), journal.undelivered(-1)) == ([], [JOB])
    journal.forget(JOB)
    last = journal.job(JOB)
    assert last
    assert last.state == "delivered"
    assert (len(last.tensors), len(last.sub_bundles)) == (0, 0)
    assert files(tmp_path) == []
    with pytest.raises(OutputError, match="cannot read the journal's"):
        journal.read(made)
    journal.close()


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_two_jobs_share_a_tensor(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path)
    for job in (JOB, OTHER):
        journal.accept(job, "c", {"x": content})
    journal.forget(JOB)
    assert journal.read(digest_of(content)) == content
    journal.forget(OTHER)
    assert files(tmp_path) == []
    journal.close()


def test_counting_never_goes_back(tmp_path: Path) -> None:
    """Two managers that start within one second must not number their attempts alike."""
    numbers = []
    for _ in range(3):
        journal = Journal(tmp_path)
        numbers += [journal.count(), journal.count()]
        journal.close()
    assert numbers == sorted(set(numbers))


def test_a_changed_tensor_is_not_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (digest,) = journal.accept(JOB, "c", {"x": LARGE}).values()
    (tmp_path / "tensors" / digest.hex()).write_bytes(LARGE[:-1] + b"x")
    with pytest.raises(OutputError, match="was changed"):
        journal.read(digest)
    journal.close()


def test_leftovers_of_a_killed_manager_are_deleted(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    (tmp_path / "tensors" / ("0" * 64)).write_bytes(b"nobody's")
    (tmp_path / "tensors" / "0.part").write_bytes(b"half")
    Journal(tmp_path).close()
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot keep a journal in"):
        Journal(tmp_path / "file")


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as base:
        base.execute("pragma user_version = 1")
    with pytest.raises(OutputError, match="is of another version of HyPS; remove it"):
        Journal(tmp_path)


def test_acknowledged_jobs_are_kept(tmp_path: Path) -> None:
    """A process that prints each accepted job is killed with SIGKILL in the middle, five times."""
    script = """
import os, sys
from pathlib import Path
from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.cluster.transfer.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    job, data = os.urandom(16).hex(), os.urandom(300_000)
    journal.accept(job, "c", {"x": data})
    journal.keep(job, "a", digest_of(data[:100]), data[:100])
    print(job, flush=True)
"""
    printed: list[str] = []
    for round_ in range(5):
        with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            printed += [process.stdout.readline().strip() for _ in range(3 + round_)]
            os.kill(process.pid, signal.SIGKILL)
            printed += [line.strip() for line in process.stdout if len(line) == 33]
    journal = Journal(tmp_path)
    found = {record.job: record for record in journal.open_jobs()}
    assert found.keys() >= set(printed)
    for job in printed:
        assert len(journal.read(found[job].tensors["x"])) == 300_000
        assert len(journal.read(found[job].tensors["a"])) == 100
    journal.close()
