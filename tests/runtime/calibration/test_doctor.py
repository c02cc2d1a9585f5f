"""``hyps-run doctor`` as a user sees it, with libraries that fail, and with bundles that do not fit."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.records.files import CompressedRecord, FrameRecord
from hyps.runtime.calibration import examination
from hyps.runtime.calibration.checks import Check, memory_check, storage_check
from hyps.runtime.calibration.examination import budgets_check, bundle_check, examine
from hyps.runtime.device.available_memory import AvailableMemory
from hyps.runtime.errors import DeviceError
from tests.waiting import PATIENCE_S

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")

NAMES = [
    *("python", "architecture", "numpy", "msgspec", "pillow", "onnxruntime", "memory", "swap", "locked memory"),
    *("storage", "huge pages", "threads", "what fits"),
]
MEMORY = AvailableMemory(total_bytes=500_000_000, available_bytes=100_000_000, bound="MemAvailable of /proc/meminfo")
ILLEGAL = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"


@pytest.fixture
def examined(bin_folder: Path, tmp_path: Path) -> Callable[..., list[Check]]:
    """Return a function that runs ``hyps-run doctor --json`` in an empty folder, with a fake onnxruntime on the path."""

    def run(source: str, code: int, *arguments: str | Path) -> list[Check]:
        (fakes := tmp_path / "fakes").mkdir()
        (here := tmp_path / "here").mkdir()
        (fakes / "onnxruntime.py").write_text(source)
        command = [bin_folder / "hyps-run", "doctor", "--json", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(fakes)}
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        done = subprocess.run(
            command,
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)),
        )
        assert (done.returncode, done.stderr) == (code, "")
        assert list(here.iterdir()) == []
        return msgspec.json.decode(done.stdout, type=list[Check])

    return run


def test_a_line_a_check(hyps_run: Run, tmp_path: Path) -> None:
    done = hyps_run("doctor", "--folder", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [re.split("  +", line)[1] for line in lines] == NAMES
    assert all(re.match(r"(ok  |warn)  [a-z ]{13}  \S", line) for line in lines), lines
    assert "\x1b" not in done.stdout
    assert re.search(r"3\.\d+\.\d+, 64 bits$", lines[0])
    assert " with CPUExecutionProvider; its memory " in lines[5]
    own, free = map(float, re.findall(r"(\d+\.\d) MB", lines[-1]))
    assert 35 < own < 90 < free
    assert list(tmp_path.iterdir()) == []


def test_json(hyps_run: Run, cifar_bundle: Path, tmp_path: Path) -> None:
    done = hyps_run("doctor", cifar_bundle, "--folder", tmp_path, "--json")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    answer = json.loads(done.stdout)
    assert [entry["check"] for entry in answer] == NAMES
    for entry in answer:
        assert set(entry) == {"check", "state", "found", "mend"}
        assert entry["found"]
        assert (entry["state"], bool(entry["mend"])) in (("ok", False), ("warn", True))
    assert answer[-1]["found"].startswith(f"{cifar_bundle} has a budget of 72.0 MB and a predicted peak of ")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_with_compressed_weights_needs_zstandard(
    manifest: Manifest, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = manifest.steps[0].weights
    assert weights
    content = b"compressed"
    file = CompressedRecord(
        path="partitions/00-first.weights.zst",
        size_bytes=len(content),
        sha256="0" * 64,
        frames=(FrameRecord(18, len(content), 1),),
    )
    step = msgspec.structs.replace(manifest.steps[0], weights=msgspec.structs.replace(weights, compressed=file))
    changed = msgspec.structs.replace(manifest, steps=(step, *manifest.steps[1:]))
    (bundle / file.path).write_bytes(content)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(changed))
    assert bundle_check(bundle, MEMORY, []).state == "ok"
    missing = Check("zstandard", "FAIL", "not installed", "pip install 'zstandard>=0.22'")
    monkeypatch.setattr(examination, "library_check", lambda name: missing)
    found = f"the weights of {bundle} are compressed, which needs zstandard: not installed"
    assert bundle_check(bundle, MEMORY, []) == Check("what fits", "FAIL", found, "pip install 'zstandard>=0.22'")


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_a_terminal(bin_folder: Path, tmp_path: Path, no_colour: str, coloured: bool) -> None:
    """A pseudo-terminal is one."""
    reader, writer = os.openpty()
    environment = {**os.environ, "NO_COLOR": no_colour}
    command: list[str | Path] = [bin_folder / "hyps-run", "doctor", tmp_path, "--folder", tmp_path]
    subprocess.run(command, stdout=writer, stderr=writer, env=environment, timeout=PATIENCE_S, check=False)
    os.close(writer)
    said = os.read(reader, 65536)
    assert (b"\x1b[32mok  \x1b[0m  python" in said, b"\x1b[31mFAIL\x1b[0m  what fits" in said) == (coloured, coloured)
    os.close(reader)


def test_an_illegal_instruction(examined: Callable[..., list[Check]]) -> None:
    found = examined(ILLEGAL, 1)
    assert [check.check for check in found] == NAMES
    assert [check.check for check in found if check.state == "FAIL"] == ["onnxruntime", "what fits"]
    assert "ends with an illegal instruction (SIGILL): built for a newer processor than " in found[5].found
    assert found[5].mend.startswith("install another version: pip install --upgrade onnxruntime")
    assert found[-1] == Check("what fits", "FAIL", "nothing runs without onnxruntime", "mend that first")


def test_an_import_error(examined: Callable[..., list[Check]], cifar_bundle: Path) -> None:
    """The check of whether a bundle fits still works."""
    found = examined("raise ImportError('libgomp.so.1: cannot open shared object file')", 1, cifar_bundle)
    assert [check.check for check in found if check.state == "FAIL"] == ["onnxruntime"]
    assert found[5].found.endswith("does not work: ImportError: libgomp.so.1: cannot open shared object file")
    assert found[5].mend == "install it again: pip install --force-reinstall 'onnxruntime>=1.23'"
    assert found[-1].state == "ok"


def test_memory_that_is_not_told(tmp_path: Path) -> None:
    check, memory = memory_check(tmp_path)
    found = "/proc/meminfo has no MemTotal and MemAvailable"
    assert (check, memory) == (Check("memory", "FAIL", found, "run this on the device, under Linux"), None)
    last = [*examine(tmp_path, None, tmp_path)][-1]
    assert last == Check("what fits", "FAIL", "not known, as memory is not", "mend that first")


def test_a_folder_that_cannot_be_written(hyps_run: Run, bundle: Path) -> None:
    """This is no failure: bundles can be run from such a folder."""
    done = hyps_run("doctor", bundle, "--folder", "/proc/self")
    storage = next(line for line in done.stdout.splitlines() if "storage" in line)
    assert storage.startswith("warn  storage        ")
    assert storage.endswith(" give a folder on the device's storage with --folder")
    missing = storage_check(Path("/gone"))
    assert missing.found == "cannot measure storage in /gone: No such file or directory"


def rewritten(bundle: Path, manifest: Manifest, **fields: Any) -> Path:
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(msgspec.structs.replace(manifest, **fields)))
    return bundle


def test_a_bundle_that_does_not_fit(hyps_run: Run, bundle: Path, manifest: Manifest) -> None:
    steps = tuple(msgspec.structs.replace(step, peak_bytes=10**15) for step in manifest.steps)
    done = hyps_run("doctor", rewritten(bundle, manifest, budget_bytes=2 * 10**15, steps=steps))
    assert done.returncode == 1
    assert re.fullmatch(
        rf"FAIL  what fits      {bundle} has a budget of 2000000000.0 MB and a predicted peak of 1000000000.0 MB; "
        r"\d+\.\d MB are available; stop other programs here, or compile with --memory \d+MB or less",
        done.stdout.splitlines()[-1],
    )


def test_a_bundle_of_which_the_peak_fits(bundle: Path, manifest: Manifest) -> None:
    check = bundle_check(rewritten(bundle, manifest, budget_bytes=200_000_000), MEMORY, [])
    found = f"{bundle} has a budget of 200.0 MB and a predicted peak of 60.0 MB, of which only the peak fits in 100.0 MB"
    mend = "stop other programs here, or compile with --memory 100MB or less"
    assert check == Check("what fits", "warn", found, mend)


def test_a_bundle_that_is_damaged(bundle: Path) -> None:
    shutil.rmtree(bundle / "partitions")
    path = bundle / "partitions/00-first.onnx"
    mend = "copy the bundle again, or compile the model again"
    assert bundle_check(bundle, MEMORY, []) == Check("what fits", "FAIL", f"{path} is missing", mend)
    (bundle / MANIFEST_NAME).unlink()
    (bundle / MANIFEST_NAME).mkdir()
    found = f"cannot read {bundle / MANIFEST_NAME}: Is a directory"
    assert bundle_check(bundle, MEMORY, []) == Check("what fits", "FAIL", found, "copy the bundle again")
    found = f"{bundle} cannot be read without msgspec"
    assert bundle_check(bundle, MEMORY, ["msgspec"]) == Check("what fits", "FAIL", found, "mend that first")


def test_a_runtime_that_does_not_fit_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    small = AvailableMemory(total_bytes=10**9, available_bytes=9_000_000, bound="x")
    found = budgets_check(small, [])
    assert found.state == "FAIL"
    assert re.fullmatch(r"the runtime itself takes \d\d\.\d MB of 9\.0 MB", found.found)

    def fails(threads: int, budget_bytes: int) -> None:
        raise DeviceError("hyps-run fails on the smallest bundle: exit code -4")

    monkeypatch.setattr("hyps.runtime.calibration.baseline.quick_baseline", fails)
    found = budgets_check(MEMORY, [])
    said = "hyps-run fails on the smallest bundle: exit code -4 (100.0 MB are available)"
    assert (found.state, found.found) == ("FAIL", said)
    assert "illegal instruction" in found.mend


@pytest.mark.parametrize(
    ("error", "says"),
    [(MemoryError(), "memory ran out"), (OSError(12, "Cannot allocate memory"), "Cannot allocate memory")],
)
def test_a_check_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch, error: Exception, says: str) -> None:
    def fails(*given: object) -> None:
        raise error

    for name in ("library_check", "storage_check", "budgets_check"):
        monkeypatch.setattr(examination, name, fails)
    found = {check.check: check for check in examine(Path(), None)}
    assert [*found] == NAMES
    for name in ("numpy", "onnxruntime", "storage", "what fits"):
        assert found[name] == Check(name, "FAIL", f"cannot be checked: {says}", "stop other programs here")


def test_it_is_small_itself() -> None:
    """Child processes use the libraries, and their memory is gone with them."""
    script = (
        "import sys; from pathlib import Path; from hyps.runtime.calibration.examination import examine; "
        "checks = [*examine(Path(), None)]; "
        "print(sorted({'numpy', 'PIL', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def bounded() -> Iterator[Callable[[int, Sequence[str | Path]], subprocess.CompletedProcess[str]]]:
    """Return a function that runs a command in a control group with a memory limit; skip where none can be made."""
    version_1 = Path("/sys/fs/cgroup/memory")
    group = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"hyps-doctor-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if version_1.is_dir() else "memory.max")
    try:
        group.mkdir()
        limit.write_text(str(1 << 30))
    except OSError as error:
        pytest.skip(f"needs control groups of memory: {error.strerror}")

    def run(limit_bytes: int, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        limit.write_text(str(limit_bytes))
        enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        return subprocess.run(
            ["sh", "-c", enter, "sh", *command], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    yield run
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("limit_bytes", "says"),
    [
        (90_000_000, r"ok    what fits      budgets of more than [45]\d\.\d MB, .* up to 7\d\.\d MB: .*"),
        (60_000_000, r"FAIL  what fits      the runtime itself takes [45]\d\.\d MB of 4\d\.\d MB; stop other programs here"),
        (25_000_000, r"FAIL  what fits      .*; .*"),
    ],
)
def test_where_memory_is_small(
    bounded: Callable[..., subprocess.CompletedProcess[str]], bin_folder: Path, tmp_path: Path, limit_bytes: int, says: str
) -> None:
    """Each check has its line, whichever child is killed, and the line on budgets is right."""
    done = bounded(limit_bytes, [bin_folder / "hyps-run", "doctor", "--folder", tmp_path])
    assert (done.stderr, done.returncode) == ("", int("FAIL" in says))
    lines = done.stdout.splitlines()
    assert [re.split("  +", line)[1] for line in lines] == NAMES
    assert re.fullmatch(says, lines[-1]), lines[-1]
    assert all(line.startswith("ok") or "; " in line for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_folder_whose_name_is_no_text(bin_folder: Path, tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xc3\xa9")
    folder.mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command: list[str | Path] = [bin_folder / "hyps-run", "doctor", folder, "--folder", folder]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert len(done.stdout.splitlines()) == len(NAMES)


def test_a_wrong_command_line(hyps_run: Run) -> None:
    done = hyps_run("doctor", "one", "two")
    assert done.returncode == 2
    assert done.stderr == "hyps-run: unrecognized arguments: two (see 'hyps-run doctor --help')\n"
