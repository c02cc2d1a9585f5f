"""The checks of ``hyps-run doctor``, on boards whose files are laid out in a folder, and with libraries that fail."""

from __future__ import annotations

import os
import resource
import sys
import tomllib
from pathlib import Path
from typing import Literal

import pytest

from hyps.runtime.calibration import checks
from hyps.runtime.calibration.checks import (
    LIBRARIES,
    PYTHON,
    Check,
    architecture_check,
    huge_pages_check,
    library_check,
    locked_check,
    memory_check,
    processor_check,
    python_check,
    storage_check,
    swap_check,
)
from hyps.runtime.device.probes import StorageProbe
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")

SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    lay_out(folder, {f"{name}.py": source})
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_the_least_versions_are_those_of_the_project(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={PYTHON[0]}.{PYTHON[1]}"
    assert sorted(project["dependencies"]) == sorted(f"{name}>={least}" for name, (least, _) in LIBRARIES.items())


WRONG = {
    "hangs": ("import time; time.sleep(60)", "FAIL", "still hung after 0.5 s", "stop other programs and try again"),
    "crashes": ("import os; os.abort()", "FAIL", "crashes (Aborted)", "install it again"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "FAIL", "killed, as when memory runs out", "stop other programs here"),
    "says nothing": ("import os; os._exit(3)", "FAIL", "does not work: exit code 3", "install it again"),
    "without the processor": (
        "__version__ = '9'\nget_available_providers = list",
        "FAIL",
        "does not work: AssertionError",
        "install it",
    ),
    "old": (
        "__version__ = '1.9.2'\nget_available_providers = lambda: ['CPUExecutionProvider']",
        "warn",
        "1.9.2, older than 1.23",
        "pip install --upgrade 'onnxruntime>=1.23'",
    ),
}


@pytest.mark.parametrize(("source", "state", "found", "mend"), WRONG.values(), ids=WRONG)
def test_a_library_that_fails(
    source: str, state: str, found: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "onnxruntime", source)
    check = library_check("onnxruntime", limit_s=0.5 if "sleep" in source else PATIENCE_S)
    assert (check.check, check.state) == ("onnxruntime", state)
    assert found in check.found
    assert check.mend.startswith(mend)


@pytest.mark.parametrize(
    ("version", "state", "found", "mend"),
    [
        ("1.32.4", "ok", "1.32.4 with CPUExecutionProvider; its memory was measured", ""),
        ("1.27.0", "ok", "1.27.0 with CPUExecutionProvider; its memory is taken from 1.23, 1.28, 1.31 and 1.32", ""),
        (
            "1.99.0",
            "warn",
            "1.99.0 with CPUExecutionProvider; its memory was not measured, only that of 1.23, 1.28, 1.31 and 1.32",
            "compile with --onnxruntime 1.99, which allows 3.0 MB more than for 1.32",
        ),
    ],
)
def test_it_says_whether_the_memory_of_an_onnxruntime_was_measured(
    version: str, state: Literal["ok", "warn"], found: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"__version__ = {version!r}\nget_available_providers = lambda: ['CPUExecutionProvider']"
    fake(tmp_path, monkeypatch, "onnxruntime", source)
    assert library_check("onnxruntime") == Check("onnxruntime", state, found, mend)


def test_a_library_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARIES, "no_such_library", ("3", "import no_such_library as m"))
    assert library_check("no_such_library") == Check(
        "no_such_library", "FAIL", "not installed", "pip install 'no_such_library>=3'"
    )


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert library_check("numpy").found == "no process can be started to try it: No such file or directory"


@pytest.mark.parametrize(
    ("release", "bits", "state"), [((3, 11), 64, "ok"), ((3, 14), 64, "ok"), ((3, 10), 64, "FAIL"), ((3, 13), 32, "FAIL")]
)
def test_python(release: tuple[int, ...], bits: int, state: str) -> None:
    assert python_check(release, bits).state == state


@pytest.mark.parametrize(
    ("machine", "state", "mend"),
    [
        ("x86_64", "ok", ""),
        ("aarch64", "ok", ""),
        ("armv7l", "warn", "install a 64-bit system"),
        ("armv6l", "warn", "build it"),
    ],
)
def test_architecture(machine: str, state: str, mend: str) -> None:
    check = architecture_check(machine)
    assert check.state == state
    assert check.mend.startswith(mend)


def test_memory_of_a_control_group(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 500000 kB\nMemAvailable: 400000 kB\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/memory.max": "100000000\n",
        "sys/fs/cgroup/box/memory.current": "40000000\n",
    }
    check, memory = memory_check(lay_out(tmp_path, files))
    limit = tmp_path / "sys/fs/cgroup/box/memory.max"
    assert check == Check("memory", "ok", f"60.0 MB of 512.0 MB available, by the limit of 100.0 MB in {limit}")
    assert memory
    assert memory.available_bytes == 60_000_000


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("", "none, so that times are steady"),
        ("/dev/zram0 partition 102400 1000 100\n", "104.9 MB on /dev/zram0, in compressed memory, 1.0 MB used"),
        ("/dev/mmcblk0p3 partition 1000 0 -2\n", "1.0 MB on /dev/mmcblk0p3, on an SD card or eMMC, 0.0 MB used"),
        (
            "/dev/sda2 partition 1000 0 -2\n/var/swap file 1000 0 -3\n",
            "1.0 MB on /dev/sda2, 0.0 MB used; 1.0 MB on /var/swap, on an SD card or eMMC, 0.0 MB used",
        ),
        ("/gone file 1000 0 -2\n", "1.0 MB on /gone, 0.0 MB used"),
    ],
    ids=["none", "zram", "partition of a card", "a disk, and a file on a card", "a file elsewhere"],
)
def test_swap(rows: str, found: str, tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"proc/swaps": SWAPS + rows, "var/swap": "", "devices/mmcblk0p2/size": "1"})
    number = (root / "var/swap").stat().st_dev
    (root / "sys/dev/block").mkdir(parents=True)
    (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(root / "devices/mmcblk0p2")
    check = swap_check(root)
    assert (check.state, check.found) == ("warn" if rows else "ok", found)
    assert check.mend.startswith("times vary where memory is short") == bool(rows)


@pytest.mark.parametrize(
    ("most", "capable", "swaps", "state", "found"),
    [
        (resource.RLIM_INFINITY, "0", True, "ok", "no limit"),
        (8_000_000, "000001ffffffffff", True, "ok", "no limit"),
        (8_000_000, "0", False, "ok", "at most 8.0 MB, which does not matter without swap"),
        (8_000_000, "0", True, "warn", "at most 8.0 MB: weights beyond that may be swapped out"),
    ],
    ids=["unlimited", "root", "no swap", "limited"],
)
def test_locked_memory(
    most: int, capable: str, swaps: bool, state: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (most, most))
    check = locked_check(lay_out(tmp_path, {"proc/self/status": f"Name: x\nCapEff:\t{capable}\n"}), swaps=swaps)
    assert (check.state, check.found, bool(check.mend)) == (state, found, state == "warn")


def test_slow_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "storage", lambda folder, most: StorageProbe(read_bytes_per_s=9_000_000, file_bytes=most))
    check = storage_check(Path("/data"))
    assert (check.state, check.found) == ("warn", "9.0 MB/s read cold in /data")


@pytest.mark.parametrize(
    ("setting", "state"),
    [("always [madvise] never", "ok"), ("[always] madvise never", "ok"), ("always madvise [never]", "warn"), ("", "ok")],
)
def test_huge_pages(setting: str, state: str, tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": setting})
    assert huge_pages_check(root).state == state


@pytest.mark.parametrize(
    ("governor", "driver", "state"),
    [("ondemand", "cpufreq-dt", "ok"), ("powersave", "cpufreq-dt", "warn"), ("powersave", "intel_pstate", "ok")],
)
def test_clock(governor: str, driver: str, state: str, tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": "CPU implementer : 0x41\nCPU part : 0xd03\n",
        f"{cpus}/cpu0/cpufreq/scaling_governor": governor,
        f"{cpus}/cpu0/cpufreq/scaling_driver": driver,
        f"{cpus}/cpu0/cpufreq/cpuinfo_max_freq": "1000000",
        f"{cpus}/cpu1/cpufreq/cpuinfo_max_freq": "1400000",
    }
    check = processor_check(lay_out(tmp_path, files))
    assert check.state == state
    assert "cores, cortex-a53, up to 1.4 GHz" in check.found
