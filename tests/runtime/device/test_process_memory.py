"""This process's memory is read from the kernel, and kept small."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyps.runtime.device import process_memory
from hyps.runtime.device.process_memory import Memory, memory, restart_lean, storage_bytes_read
from tests.waiting import PATIENCE_S

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")
MB = 1_000_000


def run(script: str, *arguments: str | Path, env: dict[str, str] | None = None, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=env or dict(os.environ),
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_memory_is_what_the_process_holds() -> None:
    now = memory()
    assert 5 * MB < now.resident_bytes < 1 << 40
    assert now.peak_bytes >= now.resident_bytes - 2 * MB  # the kernel counts in batches of pages
    assert now.anonymous_bytes > 0
    assert now.file_bytes > 0


def test_resident_is_anonymous_and_file() -> None:
    assert Memory(peak_bytes=9, anonymous_bytes=3, file_bytes=4).resident_bytes == 7


@linux
def test_memory_tells_anonymous_from_file_and_the_peak_from_now(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(32 * MB))
    script = """
import mmap, sys
from hyps.runtime.device.process_memory import memory
before = memory()
block = bytearray(b"x" * 64_000_000)
filled = memory()
del block
freed = memory()
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
assert sum(mapped[::4096]) == 0
read = memory()
for value in (
    filled.anonymous_bytes - before.anonymous_bytes,
    filled.peak_bytes - before.peak_bytes,
    freed.anonymous_bytes - before.anonymous_bytes,
    freed.peak_bytes - before.peak_bytes,
    read.file_bytes - freed.file_bytes,
    read.anonymous_bytes - freed.anonymous_bytes,
):
    print(value)
"""
    filled, peak, freed, peak_after, read, anonymous = map(int, run(script, tmp_path / "file").split())
    assert 62 * MB < filled < 140 * MB
    assert peak >= filled - 2 * MB
    assert freed < 2 * MB
    assert peak_after == peak
    assert 30 * MB < read < 36 * MB
    assert anonymous < 2 * MB


def test_storage_read_grows_or_stays() -> None:
    first = storage_bytes_read()
    assert first >= 0
    assert storage_bytes_read() >= first


def test_elsewhere_only_the_peak_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, as on macOS."""

    def gone(*arguments: object, **options: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_text", gone)
    assert storage_bytes_read() == 0
    now = memory()
    assert now.peak_bytes == now.resident_bytes > 5 * MB


@linux
def test_code_pages_are_given_back_and_onnxruntime_still_works(cifar_bundle: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from hyps.runtime.device.process_memory import CodePages, memory
from hyps.runtime.execution.session import open_session, to_numpy

def scores():
    session = open_session(Path(sys.argv[1], "partitions/00-scores.onnx"), 1)
    return to_numpy(session.run(["scores"], {"image": np.ones((1, 3, 32, 32), np.float32)})["scores"])

first = scores()
before = memory()
pages = CodePages()
pages.release()
after = memory()
again = scores()
pages.release()
assert np.array_equal(first, again) and np.array_equal(first, scores())
print(before.file_bytes - after.file_bytes, after.anonymous_bytes - before.anonymous_bytes)
"""
    released, anonymous = map(int, run(script, cifar_bundle).split())
    assert released > 8 * MB
    assert anonymous < 2 * MB


@linux
def test_code_is_looked_for_again_only_where_mappings_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[int] = []
    scan = process_memory._scanned_ranges

    def counted() -> list[tuple[int, int]]:
        scans.append(1)
        return scan()

    monkeypatch.setattr(process_memory, "_scanned_ranges", counted)
    monkeypatch.setattr(process_memory, "_last_scan", [])
    path = tmp_path / "mapped"
    path.write_bytes(bytes(1 << 16))
    for _ in range(2):
        assert process_memory._code_ranges() == scan()
    assert len(scans) == 1
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    (start,) = (first for first, _, name in process_memory._read_only_mappings() if name.strip() == str(path))
    assert any(first <= start < first + length for first, length in process_memory._code_ranges())
    content.close()
    assert not any(first <= start < first + length for first, length in process_memory._code_ranges())
    assert len(scans) == 3


SCRIPT = """
import os, sys
from hyps.runtime.device.process_memory import restart_lean
with open(sys.argv[1], "a") as log:
    log.write(f"{os.getpid()}\\n")
restart_lean()
print(sys.argv[2:], sys.stdin.read(), os.environ["OPENBLAS_NUM_THREADS"], os.environ.get("MINE"), sys.flags.dev_mode)
print(os.environ["GLIBC_TUNABLES"])
"""


def stock() -> dict[str, str]:
    """Return the environment without what `restart_lean` sets."""
    lean = ("GLIBC_TUNABLES", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY", "HYPS_LEAN")
    return {key: value for key, value in os.environ.items() if key not in lean}


@linux
def test_it_restarts_once_as_the_same_process_with_arguments_and_input(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ("", "a b", "--json", "é", "*", "$HOME")
    output = run(SCRIPT, log, *arguments, env=stock() | {"MINE": "kept"}, stdin="from outside")
    first, second = output.splitlines()
    assert first == f"{list(arguments)} from outside 1 kept False"
    assert "glibc.malloc.arena_max=1" in second.split(":")
    started = log.read_text().split()
    assert len(started) == 2
    assert started[0] == started[1]


@linux
def test_what_the_user_had_set_does_not_make_it_restart_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(SCRIPT, log, env=stock() | {"OPENBLAS_NUM_THREADS": "8", "GLIBC_TUNABLES": "glibc.malloc.check=0"})
    assert len(log.read_text().split()) == 2


@linux
def test_it_does_not_restart_where_all_is_set(tmp_path: Path) -> None:
    script = """
import subprocess, sys
from hyps.runtime.device.process_memory import restart_lean
restart_lean()
subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], check=True, input=b"")
"""
    run(script, tmp_path / "log", SCRIPT, env=stock())
    assert len((tmp_path / "log").read_text().split()) == 1


@linux
def test_onnxruntime_reports_to_nobody_and_leaves_no_file(tmp_path: Path) -> None:
    """Unless told otherwise, its wheels write a temporary file and a database in the cache."""
    script = """
from hyps.runtime.device.process_memory import restart_lean
restart_lean()
import hyps.runtime.execution.session
"""
    run(script, env=stock() | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())


@linux
def test_interpreter_options_survive(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SCRIPT, tmp_path / "log"],
        input="",
        capture_output=True,
        text=True,
        env=stock(),
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.splitlines()[0].endswith("True")


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("it restarted"))
    monkeypatch.delenv("HYPS_LEAN", raising=False)
    restart_lean()


@linux
def test_the_heap_is_trimmed_between_blocks_in_use() -> None:
    """What a session leaves free lies between the tensors that later steps need."""
    script = """
from hyps.runtime.device.process_memory import give_back_heap, memory
blocks = [bytes(1000) for _ in range(20_000)]
kept = blocks[::100]
del blocks
before = memory().anonymous_bytes
give_back_heap()
print(before - memory().anonymous_bytes)
"""
    assert int(run(script)) > 10 * MB
