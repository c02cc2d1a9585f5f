"""Test that fuzzing finds what it looks for, shrinks it, and saves the input; the product's own targets run in CI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import compiler_targets, device_targets, exit_targets, planning_targets, profile_targets, wire_targets
from tests.fuzz.child import Finding, Session, fuzz
from tests.fuzz.model_mutation import damaged_model
from tests.fuzz.mutation import damaged_bytes, damaged_json
from tests.fuzz.target import Read, Target
from tests.fuzz.targets import TARGETS


def target(read: Read, *, seconds: float = 10, grown_bytes: int = 20_000_000) -> Target:
    return Target(
        seeds=lambda scratch: [b"seed"],
        reader=lambda scratch: read,
        mendable=(ValueError,),
        seconds=seconds,
        grown_bytes=grown_bytes,
    )


def raises(error: Exception) -> Read:
    def read(content: bytes) -> None:
        raise error

    return read


#: More than malloc ever takes from memory that it has kept.
LARGE_BYTES = 100_000_000
FAULTS: dict[str, tuple[Read, str]] = {
    "another error": (raises(KeyError("x")), "KeyError in read"),
    "several lines": (raises(ValueError("a\nb")), "a message of several lines"),
    "memory": (lambda content: bytearray(b"x" * LARGE_BYTES).clear(), "more than 20 MB"),
}


@pytest.mark.parametrize(("read", "what"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_its_input_saved(tmp_path: Path, read: Read, what: str) -> None:
    session = Session("x", target(read), tmp_path, read)
    with pytest.raises(Finding, match=what):
        session.check(b"input")
    assert (tmp_path / "x.found").read_bytes() == b"input"


def test_right_answers_are_no_findings(tmp_path: Path) -> None:
    for read in (lambda content: None, raises(ValueError("one line"))):
        Session("x", target(read), tmp_path, read).check(b"input")
    assert not (tmp_path / "x.found").exists()


def test_a_finding_is_shrunk_and_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(content: bytes) -> None:
        if len(content) > 4:
            raise KeyError(content)

    tested = target(read)
    session = Session("x", tested, tmp_path, read)
    for number in range(3):
        fuzz(session, tested, [b"seed"], number)
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["what"].startswith("KeyError in read")
    assert len(Path(found["input"]).read_bytes()) == 5


def test_a_case_that_takes_too_long_ends_the_process(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from tests.fuzz.child import Session
from tests.fuzz.test_harness import target
read = lambda content: time.sleep(100)
Session("x", target(read, seconds=1), Path({str(tmp_path)!r}), read).check(b"input")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Timeout" in done.stderr) == (1, True)
    assert (tmp_path / "x.current").read_bytes() == b"input"


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_read(tmp_path: Path, name: str) -> None:
    seeds = TARGETS[name].seeds(tmp_path)
    read = TARGETS[name].reader(tmp_path)
    assert sum(map(len, seeds)) < 2_000_000
    for content in seeds:
        read(content)


def test_the_same_seed_draws_the_same_cases(tmp_path: Path) -> None:
    drawn: list[list[bytes]] = [[], []]
    for cases in drawn:
        read: Callable[[bytes], None] = cases.append
        tested = target(read)
        fuzz(Session("x", tested, tmp_path, read), tested, [b"seed", b"another"], 7)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0]}) > 50


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damaged_input_stays_small(data: st.DataObject) -> None:
    assert len(data.draw(damaged_bytes([b"seed" * 100]))) <= 1 << 20
    document = data.draw(damaged_json([b'{"a": [1, {"b": "c"}]}']))
    assert len(document) <= 4 << 20
    model = data.draw(damaged_model([onnx.ModelProto(ir_version=9).SerializeToString()]))
    assert len(model) <= 4 << 20


def test_every_list_of_targets_is_fuzzed() -> None:
    modules = (device_targets, exit_targets, profile_targets, wire_targets, planning_targets, compiler_targets)
    assert {name for module in modules for name in module.TARGETS} == {*TARGETS}
