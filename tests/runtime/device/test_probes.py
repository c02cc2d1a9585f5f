"""Probes read what the kernel says of boards, containers and this machine, and measure storage that is really read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hyps.runtime.device import probes
from hyps.runtime.device.available_memory import available_memory
from hyps.runtime.device.probes import board, processor, storage
from hyps.runtime.errors import DeviceError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")

MIB = 1 << 20
UNLIMITED = "9223372036854771712"
MEMINFO = "MemTotal:         100000 kB\nMemFree:           20000 kB\nMemAvailable:      60000 kB\nSwapTotal:  0 kB\n"
ARM_CORE = """\
processor	: {index}
BogoMIPS	: 38.40
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: {part}
CPU revision	: 4

"""


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "cpu"),
    [
        ("".join(ARM_CORE.format(index=index, part="0xd03") for index in range(4)), "cortex-a53"),
        (ARM_CORE.format(index=0, part="0xD08"), "cortex-a72"),
        (ARM_CORE.format(index=0, part="0xd05") + ARM_CORE.format(index=1, part="0xd0b"), "cortex-a76"),
        (ARM_CORE.format(index=0, part="0xfff"), "arm part 0xfff"),
        (
            "processor\t: 0\nmodel name\t: ARMv7 Processor rev 4 (v7l)\n" + ARM_CORE.format(index=0, part="0xd03"),
            "cortex-a53",
        ),
        ("processor : 0\nmodel : 2\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        (ARM_CORE.format(index=0, part="0x001").replace("0x41", "0x61"), os.uname().machine),
        ("", os.uname().machine),
    ],
    ids=["a53", "upper case", "fast cores last", "unknown part", "32 bits", "x86", "not Arm's own", "nothing said"],
)
def test_kind_of_core(cpuinfo: str, cpu: str, tmp_path: Path) -> None:
    assert processor(lay_out(tmp_path, {"proc/cpuinfo": cpuinfo})).cpu == cpu


def test_cores_are_those_that_may_be_used() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert processor().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert processor().cores == len(allowed)


def test_largest_cache(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cache"
    assert processor(tmp_path).cache_bytes == 0
    sizes = {"index0": "32K", "index1": "512K", "index2": "2M", "index3": "", "index4": "odd"}
    assert processor(lay_out(tmp_path, {f"{folder}/{k}/size": v for k, v in sizes.items()})).cache_bytes == 2 * MIB


def test_name_of_the_board(tmp_path: Path) -> None:
    assert board(tmp_path) is None
    lay_out(tmp_path, {"proc/cpuinfo": "model : 2\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n"})
    assert board(tmp_path) == "Raspberry Pi 3 Model B Rev 1.2"
    lay_out(tmp_path, {"proc/device-tree/model": "Raspberry Pi Zero 2 W Rev 1.0\0"})
    assert board(tmp_path) == "Raspberry Pi Zero 2 W Rev 1.0"


def group(folder: str, version: int, limit: object, usage: int = 0, idle: int = 0) -> dict[str, str]:
    mount = "sys/fs/cgroup/memory" if version == 1 else "sys/fs/cgroup"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    stat = f"cache 9\ninactive_file {0 if version == 1 else idle}\n" + (
        f"total_inactive_file {idle}\n" if version == 1 else ""
    )
    contents = {names[0]: f"{limit}\n", names[1]: f"{usage}\n", "memory.stat": stat}
    return {f"{mount}/{folder}/{name}": content for name, content in contents.items()}


V1, V2 = "4:memory:{}\n0::/\n", "0::{}\n"


@pytest.mark.parametrize(
    ("files", "available", "bound"),
    [
        ({}, 60_000 * 1024, "MemAvailable of /proc/meminfo"),
        ({"proc/self/cgroup": V2.format("/")}, 60_000 * 1024, "MemAvailable"),
        ({"proc/self/cgroup": V2.format("/a"), **group("a", 2, "max")}, 60_000 * 1024, "MemAvailable"),
        (
            {"proc/self/cgroup": V2.format("/a/b"), **group("a/b", 2, 50 * MIB, 20 * MIB, 5 * MIB)},
            35 * MIB,
            "a/b/memory.max",
        ),
        (
            {"proc/self/cgroup": V2.format("/a/b"), **group("a/b", 2, "max"), **group("a", 2, 40 * MIB, MIB)},
            39 * MIB,
            "cgroup/a/memory.max",
        ),
        ({"proc/self/cgroup": V2.format("/a"), **group(".", 2, 30 * MIB)}, 30 * MIB, "cgroup/memory.max"),
        ({"proc/self/cgroup": V1.format("/a"), **group("a", 1, UNLIMITED)}, 60_000 * 1024, "MemAvailable"),
        (
            {"proc/self/cgroup": V1.format("/a"), **group("a", 1, 50 * MIB, 20 * MIB, 5 * MIB)},
            35 * MIB,
            "a/memory.limit_in_bytes",
        ),
        (
            {"proc/self/cgroup": "7:cpu,memory:/docker/1\n", **group(".", 1, 20 * MIB)},
            20 * MIB,
            "memory/memory.limit_in_bytes",
        ),
        ({"proc/self/cgroup": "7:cpu:/a\n", **group("a", 1, 20 * MIB)}, 60_000 * 1024, "MemAvailable"),
        ({"proc/self/cgroup": V2.format("/a"), **group("a", 2, 90_000 * 1024)}, 60_000 * 1024, "MemAvailable"),
    ],
    ids=[
        "no groups",
        "root of version 2",
        "no limit",
        "version 2",
        "the parent's limit",
        "a container of version 2",
        "version 1 without a limit",
        "version 1",
        "a container of version 1",
        "another controller",
        "a limit above what is free",
    ],
)
def test_memory_that_is_free(files: dict[str, str], available: int, bound: str, tmp_path: Path) -> None:
    room = available_memory(lay_out(tmp_path, {"proc/meminfo": MEMINFO, **files}))
    assert (room.total_bytes, room.available_bytes) == (100_000 * 1024, available)
    assert bound in room.bound


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "/proc/meminfo has no MemTotal and MemAvailable; run this on the device, under Linux"),
        (
            {"proc/meminfo": MEMINFO.replace("60000", "0")},
            "0 bytes of memory are available according to MemAvailable of /proc/meminfo; "
            "stop other programs here, then try again",
        ),
        (
            {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n", **group("a", 2, MIB, 2 * MIB)},
            "0 bytes of memory are available according to {root}/sys/fs/cgroup/a/memory.max; "
            "stop other programs here, then try again",
        ),
    ],
    ids=["not Linux", "nothing free", "the group is full"],
)
def test_no_memory(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        available_memory(lay_out(tmp_path, files))
    assert str(caught.value) == message.format(root=tmp_path)


def test_memory_of_this_machine() -> None:
    room = available_memory()
    assert 10 * MIB < room.available_bytes < room.total_bytes


def test_storage_is_read_cold_and_nothing_is_left(tmp_path: Path) -> None:
    try:
        found = storage(tmp_path)
    except DeviceError as error:
        if "took nothing from storage" in str(error):
            pytest.skip("the folder for temporary files is held in memory")
        raise
    assert 4 * MIB <= found.file_bytes <= 64 * MIB
    assert 100_000 < found.read_bytes_per_s < 100 * 10**9
    assert not list(tmp_path.iterdir())


def test_a_read_that_a_cache_served_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: pages are not dropped from the cache first."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)
    monkeypatch.setattr(probes, "_FILE_BYTES", 8 * MIB)
    with pytest.raises(DeviceError, match="took nothing from storage"):
        storage(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_a_file_system_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_FILE_BYTES", 8 * MIB)
    with pytest.raises(DeviceError) as caught:
        storage(Path("/dev/shm"))
    assert str(caught.value) == (
        "reading in /dev/shm took nothing from storage (it may be in memory, as tmpfs is); give a folder on the "
        "device's storage with --folder"
    )


def test_a_folder_that_takes_no_file(tmp_path: Path) -> None:
    mend = "give a folder on the device's storage with --folder"
    for folder, message in (
        (tmp_path / "gone", f"cannot measure storage in {tmp_path / 'gone'}: No such file or directory; {mend}"),
        (Path("/proc"), f"/proc has no room for a file to measure with; free 16 MB, or {mend}"),
    ):
        with pytest.raises(DeviceError) as caught:
            storage(folder)
        assert str(caught.value) == message


def test_slow_storage_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing ends in time, and so does each pass of reading: the rate is that of the bytes that were read."""
    monkeypatch.setattr(probes, "_WRITE_S", 1e-9)
    assert probes._FILE_BYTES > probes._PIECE_BYTES
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert probes._fill(file, 64 * MIB) == 0
        monkeypatch.setattr(probes, "_WRITE_S", 30.0)
        assert probes._fill(file, 10 * MIB) == 8 * MIB
        assert os.fstat(file).st_size == 8 * MIB
        assert probes._read_cold(file)[0] == 8 * MIB
    finally:
        os.close(file)
