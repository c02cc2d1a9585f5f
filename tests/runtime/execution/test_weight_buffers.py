"""A buffer takes pages when it is written to, and gives them back."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from hyps.runtime.device.process_memory import memory
from hyps.runtime.execution.weight_buffers import WeightBuffer

MB = 1 << 20


@pytest.mark.own_process
@pytest.mark.parametrize("huge", [True, False])
@pytest.mark.parametrize("nbytes", [3 * MB, 40 * MB])
def test_a_buffer_takes_pages_when_written_and_gives_them_back(nbytes: int, huge: bool) -> None:
    before = memory().anonymous_bytes
    buffer = WeightBuffer(nbytes, huge=huge)
    assert memory().anonymous_bytes - before < MB
    buffer.view[:] = b"\x01" * nbytes
    full = memory().anonymous_bytes - before
    assert nbytes <= full < nbytes + 4 * MB
    buffer.release(MB)
    assert memory().anonymous_bytes - before < 4.5 * MB
    assert buffer.view[MB - 1] == 1
    assert buffer.view[MB] == buffer.view[nbytes - 1] == 0
    buffer.lock(MB)  # does nothing where it is not allowed


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages")
@pytest.mark.parametrize("huge", [True, False])
def test_a_kernel_that_gives_huge_pages_unasked_gives_none_beyond_what_is_used(huge: bool) -> None:
    """Debian's kernel does. The flags of a mapping say what the kernel may do: ``hg``, huge pages; ``nh``, none."""
    buffer = WeightBuffer(3 * MB, huge=huge)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer.view))
    first, last = flags_of(address), flags_of(address + 3 * MB - 1)
    assert ("hg" in first, "nh" in first) == (huge, not huge)
    assert "nh" in last


def flags_of(address: int) -> list[str]:
    """Return the flags of the mapping that contains an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if inside and words[0] == "VmFlags:":
            return words[1:]
        if not words[0].endswith(":"):
            start, stop = (int(each, 16) for each in words[0].split("-"))
            inside = start <= address < stop
    raise AssertionError(f"nothing is mapped at {address:x}")


@pytest.mark.own_process
def test_a_mapped_file_is_resident_where_it_is_populated(tmp_path: Path) -> None:
    path, content = tmp_path / "weights", bytes(range(256)) * (64 << 10)
    path.write_bytes(content)
    buffer = WeightBuffer(len(content), huge=False)
    with path.open("rb") as file:
        buffer.map_file(file.fileno(), 4 * MB)
    before = memory().resident_bytes
    buffer.populate(4 * MB, 12 * MB)
    assert 8 * MB <= memory().resident_bytes - before < 9 * MB
    assert buffer.view[4 * MB : 12 * MB] == content[4 * MB : 12 * MB]
    assert set(buffer.view[:MB]) == {0}
    buffer.release(6 * MB)
    assert memory().resident_bytes - before < 4 * MB
    path.write_bytes(content[: 8 * MB])
    with pytest.raises(OSError, match="Bad address"):
        buffer.populate(6 * MB, 12 * MB)
