"""Check that built-in targets are complete and sourced, and that a wrong file is refused in one helpful line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.compiler import compile_model
from hyps.compiler.errors import CompilerError, TargetError
from hyps.compiler.target_files import load_target, target_names, target_toml
from hyps.compiler.targets import Sources, Target
from hyps.runtime.bundle.integrity import read_manifest

NAMES = (
    "jetson-nano",
    "rpi3b",
    "rpi3b-plus",
    "rpi4b-1gb",
    "rpi4b-2gb",
    "rpi4b-4gb",
    "rpi4b-8gb",
    "rpi5-4gb",
    "rpi5-8gb",
    "rpizero2w",
)
KNOWN = ", ".join(NAMES)
MEASURED = (
    "process_bytes",
    "process_images_bytes",
    "threads",
    "conv_macs_per_s",
    "one_thread_conv_macs_per_s",
    "gemm_macs_per_s",
    "gemv_bytes_per_s",
    "depthwise_macs_per_s",
    "memory_bytes_per_s",
    "cached_read_bytes_per_s",
    "fresh_bytes_per_s",
    "open_us",
    "open_node_us",
    "step_us",
    "decompression_bytes_per_s",
)
OWN = """\
name = "own"
title = "My board"
memory_bytes = 268_435_456
reserved_bytes = 100_000_000
cores = 2
cpu = "cortex-a53"
storage_read_bytes_per_s = 10_000_000
network_bytes_per_s = 1_000_000
"""


def message_of(name_or_path: str | Path) -> str:
    """Return the message with which `load_target` refuses, which must be one line."""
    with pytest.raises(TargetError) as caught:
        load_target(str(name_or_path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_names_are_the_published_ones() -> None:
    assert target_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_built_in_is_whole(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.title
    assert target.cpu
    assert target.reserved_bytes > 0
    assert 0 < target.budget_bytes < target.memory_bytes
    assert min(target.cores, target.storage_read_bytes_per_s, target.network_bytes_per_s or 0) > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("figure", ["memory", "reserved", "cores", "storage", "network", "power"])
def test_built_in_figure_has_a_source(name: str, figure: str) -> None:
    assert len(getattr(load_target(name).sources, figure)) > 10


@pytest.mark.parametrize("name", NAMES)
def test_built_in_powers_are_those_of_a_board(name: str) -> None:
    power = load_target(name).power
    assert power is not None
    assert 100 < power.idle_milliwatts < power.busy_milliwatts < 15_000
    assert (power.cores, power.error_milliwatts) == (load_target(name).cores, None)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("idle_milliwatts = 5", "idle_milliwatts and busy_milliwatts belong together; give both or neither"),
        ("idle_milliwatts = 5\nbusy_milliwatts = 4", "busy_milliwatts is 4, less than idle_milliwatts, 5"),
        ("idle_milliwatts = -1\nbusy_milliwatts = 4", "idle_milliwatts is -1; write a number above 0"),
        ("power_error_milliwatts = -1", "power_error_milliwatts is -1; write 0 or more"),
        ("idle_milliwatts = 1.4\nbusy_milliwatts = 4", "Expected `int | null`, got `float` - at `$.idle_milliwatts`"),
    ],
)
def test_powers_that_cannot_be(lines: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"{OWN}{lines}\n")
    assert message_of(path) == f"target file {str(path)!r}: {problem}"


@pytest.mark.parametrize("name", NAMES)
def test_built_in_states_nothing_that_only_the_device_itself_can_tell(name: str) -> None:
    target = load_target(name)
    assert [getattr(target, field) for field in MEASURED] == [None] * len(MEASURED)
    assert (target.sources.process, target.sources.threads, target.sources.compute) == ("", "", "")


@pytest.mark.parametrize("field", ["network_bytes_per_s", *MEASURED])
def test_what_nobody_measured_may_be_left_out_but_not_be_nothing(field: str, tmp_path: Path) -> None:
    bare = OWN.replace("network_bytes_per_s = 1_000_000\n", "")
    path = tmp_path / "own.toml"
    path.write_text(bare)
    assert getattr(load_target(str(path)), field) is None
    path.write_text(f"{bare}{field} = 7\n")
    assert getattr(load_target(str(path)), field) == 7
    for value in (0, -1):
        path.write_text(f"{bare}{field} = {value}\n")
        assert message_of(path) == f"target file {str(path)!r}: {field} is {value}; write a number above 0"


@pytest.mark.parametrize(
    ("name", "mib", "cpu"),
    [
        ("rpi3b", 1024, "cortex-a53"),
        ("rpi4b-2gb", 2048, "cortex-a72"),
        ("rpi5-8gb", 8192, "cortex-a76"),
        ("rpizero2w", 512, "cortex-a53"),
        ("jetson-nano", 4096, "cortex-a57"),
    ],
)
def test_built_in_is_the_board_it_names(name: str, mib: int, cpu: str) -> None:
    target = load_target(name)
    assert (target.memory_bytes, target.cpu) == (mib * 2**20, cpu)


@pytest.mark.parametrize("family", ["rpi4b-", "rpi5-"])
def test_a_larger_board_has_a_larger_budget(family: str) -> None:
    targets = sorted(
        (load_target(name) for name in NAMES if name.startswith(family)), key=lambda target: target.memory_bytes
    )
    budgets = [target.budget_bytes for target in targets]
    assert budgets == sorted(set(budgets))


def test_a_measured_budget_is_what_was_measured() -> None:
    """291.6 MiB were available on an idle Zero 2 W; the budget is at most 1 MiB less."""
    assert load_target("rpizero2w").budget_bytes == 291 * 2**20


def test_own_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    target = load_target(str(path))
    assert target.budget_bytes == 168_435_456
    assert target.sources == Sources()


@pytest.mark.parametrize("name", NAMES)
def test_built_in_text_is_a_template(name: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.toml"
    path.write_text(target_toml(name))
    assert load_target(str(path)) == load_target(name)


def test_own_file_may_have_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(OWN.replace("\n", "\r\n").encode())
    assert load_target(str(path)).name == "own"


def test_own_file_in_the_working_folder_needs_no_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert load_target("own.toml").name == "own"


def test_own_file_with_a_separator_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "own").write_text(OWN)
    assert load_target(str(tmp_path / "own")).name == "own"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rpi3", "did you mean 'rpi3b'? "),
        ("RPi3B-Plus", "did you mean 'rpi3b-plus'? "),
        ("rpi5-16gb", "did you mean 'rpi5-8gb'? "),
        ("toaster", ""),
        ("", ""),
        ("..", ""),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    tail = f"{hint}known are {KNOWN}; or give the path of your own .toml file"
    assert message_of(name) == f"unknown target {name!r}; {tail}"


def test_missing_file(tmp_path: Path) -> None:
    path = str(tmp_path / "none.toml")
    assert message_of(path) == f"no target file {path!r}; check the path, or use a built-in target: {KNOWN}"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "cores = 2",
            "cores 2",
            " is not valid TOML: Expected '=' after a key in a key/value pair (at line 5, column 7)",
        ),
        ("cores = 2", "cores = 2\ncores = 3", " is not valid TOML: Cannot overwrite a value (at line 6, column 10)"),
        ("cores = 2", "", ": Object missing required field `cores`"),
        ("cores = 2", "coers = 2\ncores = 2", ": Object contains unknown field `coers`"),
        ("268_435_456", '"256MiB"', ": Expected `int`, got `str` - at `$.memory_bytes`"),
        ("268_435_456", "268.4e6", ": Expected `int`, got `float` - at `$.memory_bytes`"),
        ("cores = 2", "cores = true", ": Expected `int`, got `bool` - at `$.cores`"),
        ("268_435_456", "0", ": memory_bytes is 0; write a number above 0"),
        ("cores = 2", "cores = -1", ": cores is -1; write a number above 0"),
        ("10_000_000", "0", ": storage_read_bytes_per_s is 0; write a number above 0"),
        ("1_000_000\n", "-5\n", ": network_bytes_per_s is -5; write a number above 0"),
        ("100_000_000", "-1", ": reserved_bytes is -1; write 0 or more"),
        (
            "100_000_000",
            "268_435_456",
            ": reserved_bytes is 268435456, which leaves nothing of memory_bytes, 268435456; write less",
        ),
        ('"My board"', '""', ": Expected `str` of length >= 1 - at `$.title`"),
        (
            '"own"',
            '"my board\\n"',
            r": Expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9._-]*\\Z' - at `$.name`",
        ),
        ("cores = 2", "sources = 3\ncores = 2", ": Expected `object`, got `int` - at `$.sources`"),
        (
            "1_000_000\n",
            "1_000_000\n[sources]\nprice = 'shop'\n",
            ": Object contains unknown field `price` - at `$.sources`",
        ),
    ],
    ids=[
        "no equals sign",
        "key twice",
        "field missing",
        "field unknown",
        "size as text",
        "size as float",
        "cores as bool",
        "no memory",
        "negative cores",
        "no storage",
        "negative network",
        "negative reserve",
        "all reserved",
        "no title",
        "name of two lines",
        "sources no table",
        "unknown source",
    ],
)
def test_wrong_file(old: str, new: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    assert OWN.count(old) == 1, "the test's own replacement is ambiguous"
    path.write_text(OWN.replace(old, new))
    assert message_of(path) == f"target file {str(path)!r}{problem}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"#" * (64 * 1024 + 1), "is over 64 KiB; a target has a dozen lines: check the path"),
        (b"name = '\xff'", "is not UTF-8 text (byte 8); save it as UTF-8"),
        (b"a = " + b"[" * 60_000, "is not valid TOML: it nests too deeply"),
    ],
    ids=["large", "not text", "nested"],
)
def test_hostile_file(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(data)
    assert message_of(path) == f"target file {str(path)!r} {problem}"


def test_endless_number(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace("268_435_456", "9" * 5_000))
    assert "Exceeds the limit" in message_of(path)


def test_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN + "#" * (64 * 1024 - len(OWN)))
    assert load_target(str(path)).name == "own"


def test_folder_is_no_target(tmp_path: Path) -> None:
    path = str(tmp_path)
    assert message_of(path) == f"target file {path!r} is not a regular file; give the path of a .toml file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    assert message_of(path) == f"target file {str(path)!r} is not a regular file; give the path of a .toml file"


@pytest.mark.parametrize("path", ["a\0.toml", "x" * 5_000 + ".toml"], ids=["null", "long"])
def test_impossible_path(path: str) -> None:
    message_of(path)


def test_target_error_is_a_users_mistake() -> None:
    assert issubclass(TargetError, CompilerError)


def test_target_cannot_be_half_built() -> None:
    target = load_target("rpi3b")
    with pytest.raises(ValueError, match="leaves nothing"):
        msgspec.structs.replace(target, reserved_bytes=target.memory_bytes)
    with pytest.raises(AttributeError):
        target.cores = 8  # type: ignore[misc]


def test_target_takes_keywords_only() -> None:
    with pytest.raises(TypeError):
        Target("own")  # type: ignore[call-arg]


@pytest.mark.parametrize("has_target", [True, False], ids=["for a target", "for a budget"])
def test_a_bundle_carries_the_powers_of_its_target(root: Path, tmp_path: Path, has_target: bool) -> None:
    """The runtime knows no targets: it estimates energy from what the manifest says."""
    options: Any = {"target": "rpi3b"} if has_target else {"memory_bytes": 72_000_000}
    compile_model(root / "models" / "cifar10_vgg.onnx", tmp_path / "bundle", **options)
    target = read_manifest(tmp_path / "bundle").target
    assert target.power == (load_target("rpi3b").power if has_target else msgspec.UNSET)
