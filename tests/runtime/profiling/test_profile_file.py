"""The file of a step profile: it is read back as it was written, and anything else is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling import profile_file
from hyps.runtime.profiling.board_facts import BoardFacts, this_board
from hyps.runtime.profiling.profile_file import StepProfileFile, read_step_profile, write_step_profile

PI = BoardFacts(
    model="Raspberry Pi 4 Model B Rev 1.4",
    machine="aarch64",
    cpu="cortex-a72",
    cores=4,
    memory_bytes=3_977_879_552,
    onnxruntime="1.32.0",
)


def test_it_is_read_as_it_was_written(layers_profile: StepProfileFile, tmp_path: Path) -> None:
    write_step_profile(tmp_path / "p.json", layers_profile)
    assert read_step_profile(tmp_path / "p.json") == layers_profile


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("unknown",), 1),
        (("steps",), []),
        (("bundle",), "x"),
        (("board_class",), ""),
        (("board", "cores"), 0),
        (("steps", 0, "key"), "0" * 63),
        (("steps", 0, "multiply_adds"), -1),
        (("steps", 0, "times"), []),
        (("steps", 0, "times", 0, "threads"), 0),
        (("steps", 0, "times", 0, "run_s", "median"), -1e-9),
        (("steps", 0, "times", 0, "run_s", "lower"), 1e5),
        (("steps", 0, "times", 0, "run_s", "upper"), 1e300),
    ],
    ids=lambda case: "/".join(map(str, case)) if isinstance(case, tuple) else "",
)
def test_another_value_is_refused(
    layers_profile: StepProfileFile, tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    document: Any = msgspec.json.decode(msgspec.json.encode(layers_profile))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(document))
    with pytest.raises(ProfileError, match="is no step profile of version 1"):
        read_step_profile(tmp_path / "p.json")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"NaN"], ids=["empty", "no text", "deep", "NaN"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(ProfileError, match="is no step profile"):
        read_step_profile(tmp_path / "p.json")


def test_a_huge_or_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match="cannot read"):
        read_step_profile(tmp_path / "p.json")
    monkeypatch.setattr(profile_file, "STEP_PROFILE_LIMIT_BYTES", 100)
    (tmp_path / "p.json").write_bytes(bytes(101))
    with pytest.raises(ProfileError, match="more than any step profile"):
        read_step_profile(tmp_path / "p.json")


def test_a_class_says_what_the_speed_depends_on() -> None:
    assert PI.board_class == "Raspberry Pi 4 Model B Rev 1.4, 4 x cortex-a72, 4 GiB, onnxruntime 1.32"


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"memory_bytes": 4_110_000_000}, True),
        ({"onnxruntime": "1.32.1"}, True),
        ({"memory_bytes": 8 << 30}, False),
        ({"memory_bytes": (1 << 32) + 1}, False),
        ({"onnxruntime": "1.31.0"}, False),
        ({"cores": 2}, False),
        ({"model": ""}, False),
    ],
    ids=str,
)
def test_boards_of_a_class(changes: dict[str, Any], is_same: bool) -> None:
    assert (msgspec.structs.replace(PI, **changes).board_class == PI.board_class) == is_same


def test_small_memory_and_this_board() -> None:
    assert ", 512 MiB, " in msgspec.structs.replace(PI, memory_bytes=450_000_000).board_class
    assert this_board() == msgspec.json.decode(msgspec.json.encode(this_board()), type=BoardFacts)
