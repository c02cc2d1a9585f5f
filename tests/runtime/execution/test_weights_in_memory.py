"""A step's weights are in memory when it runs, whatever is pinned, read ahead or broken off; and no more than planned."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.compression import compressed_frame, frame_compressor
from hyps.runtime.bundle.manifest import CompressedRecord, FrameRecord, Manifest, Step, WeightRecord, WeightsRecord
from hyps.runtime.device.process_memory import map_file, memory
from hyps.runtime.errors import BundleError, LibraryError
from hyps.runtime.execution import weight_buffers
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.execution.weight_residency import WeightResidency

MB = 1 << 20
#: Half of what weights files are aligned to.
HALF = 1 << 15


def bundle(
    folder: Path, template: Step, sizes: Sequence[int], plans: Sequence[tuple[int, int]], item_bytes: Sequence[int] = ()
) -> tuple[Step, ...]:
    """Write weights of these sizes (0: none, else `expected`); return steps with these (pinned, ahead) bytes.

    With ``item_bytes`` the weights are compressed, frame after frame with the next of these sizes of items.
    """
    (folder / "partitions").mkdir(parents=True, exist_ok=True)
    steps = []
    for index, (size, (pinned, ahead)) in enumerate(zip(sizes, plans, strict=True)):
        record = None
        if size:
            content = expected(index, size).tobytes()
            if item_bytes:
                compressed = compress(folder, f"partitions/{index}.weights.zst", content, itertools.cycle(item_bytes))
            else:
                (folder / f"partitions/{index}.weights").write_bytes(content)
            record = WeightsRecord(
                path=f"partitions/{index}.weights",
                size_bytes=size,
                sha256=hashlib.sha256(content).hexdigest(),
                tensors=(WeightRecord(name="w", dtype="uint8", shape=(size,), offset=0),),
                compressed=compressed if item_bytes else msgspec.UNSET,
            )
        steps.append(
            msgspec.structs.replace(
                template, weights=record, pinned_bytes=min(pinned, size), ahead_bytes=ahead, peak_bytes=1, alone_bytes=1
            )
        )
    return tuple(steps)


def compress(folder: Path, name: str, content: bytes, item_bytes: Iterator[int]) -> CompressedRecord:
    """Write the content in frames of 24,000 bytes; an item size of 0 means a frame that is stored as it is."""
    stored, frames = b"", []
    for start in range(0, len(content), 24_000):
        plain, item = content[start : start + 24_000], next(item_bytes)
        data = compressed_frame(frame_compressor(), plain, item) if item else plain
        frames.append(FrameRecord(len(plain), len(data), item or 1))
        stored += data
    (folder / name).write_bytes(stored)
    digest = hashlib.sha256(stored).hexdigest()
    return CompressedRecord(path=name, size_bytes=len(stored), sha256=digest, frames=tuple(frames))


def expected(index: int, size: int) -> Any:
    return (np.arange(size) * (2 * index + 3) % 251).astype(np.uint8)


def check(residency: WeightResidency, index: int, size: int) -> None:
    values = residency.values(index)
    assert values.keys() == ({"w"} if size else set())
    for value in values.values():
        np.testing.assert_array_equal(to_numpy(value), expected(index, size))


@pytest.fixture(scope="module")
def template(request: pytest.FixtureRequest) -> Step:
    record = {"path": "partitions/x.onnx", "size_bytes": 0, "sha256": "0" * 64}
    return msgspec.convert(
        {
            **dict.fromkeys(("alone_bytes", "peak_bytes", "pinned_bytes", "ahead_bytes", "weight_bytes"), 0),
            "activation_bytes": 0,
            "multiply_adds": 0,
            "session": {"stays_open": False, "reuses_memory": True},
            "name": "x",
            "model": record,
            "weights": None,
            **dict.fromkeys(("inputs", "outputs", "live", "operators"), ()),
        },
        Step,
    )


SIZES = st.integers(0, 6).map(lambda units: units * HALF) | st.integers(0, 6 * HALF)


def unmappable(address: int, nbytes: int, file: int = -1, offset: int = 0) -> None:
    """Refuse a file, as some file systems do."""
    if file >= 0:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    map_file(address, nbytes)


#: What is replaced for a kernel before 5.14, and for a file system whose files cannot be mapped.
KERNELS: dict[str, dict[str, object]] = {"new": {}, "old": {"_POPULATE_READ": 9_999}, "unmappable": {"map_file": unmappable}}


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_every_step_finds_its_weights(data: st.DataObject, template: Step, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over several inferences, some of which break off at a step and some with their successors' weights read ahead."""
    sizes = data.draw(st.lists(SIZES, min_size=1, max_size=7), "sizes")
    plans = data.draw(st.lists(st.tuples(SIZES, SIZES), min_size=len(sizes), max_size=len(sizes)), "pinned, ahead")
    folder = tmp_path_factory.mktemp("steps")
    item_bytes = data.draw(st.lists(st.sampled_from([0, 1, 2, 4, 8]), max_size=3), "item sizes of compressed frames")
    if item_bytes:  # frames hold whole items
        sizes = [size // HALF * HALF for size in sizes]
    steps = bundle(folder, template, sizes, plans, item_bytes)
    huge, cached = data.draw(st.booleans(), "huge"), data.draw(st.booleans(), "cached")
    kernel = KERNELS[data.draw(st.sampled_from(sorted(KERNELS)), "kernel")]
    residency = WeightResidency(folder, steps, huge=huge, keep_cached=cached)
    with pytest.MonkeyPatch.context() as patch:
        for name, other in kernel.items():
            patch.setattr(weight_buffers, name, other)
        for again, stop in data.draw(st.lists(st.tuples(st.booleans(), st.integers(1, 7)), max_size=5), "inferences"):
            for index in range(min(stop, len(sizes))):
                residency.enter(index, again=again)
                check(residency, index, sizes[index])
                residency.leave(index)
            if data.draw(st.booleans(), "room is made"):
                residency.release()


@pytest.mark.parametrize(
    ("plans", "broken_off_at"),
    [
        ([(0, MB)] * 4, 1),  # of the third, all is there, where the first will be
        ([(0, 0), (MB, MB), (0, 0), (0, 0)], 1),  # likewise, and no more is to be read of it beside the first
        ([(0, MB // 2), (MB, MB), (0, 0), (0, 0)], 1),  # half of it is, beside the first
    ],
)
def test_what_was_read_ahead_of_an_inference_that_broke_off(
    plans: list[tuple[int, int]], broken_off_at: int, template: Step, tmp_path: Path
) -> None:
    steps = bundle(tmp_path, template, [MB] * 4, plans)
    residency = WeightResidency(tmp_path, steps)
    for stop in (broken_off_at, len(steps) - 1):
        for index in range(stop + 1):
            residency.enter(index, again=False)
            check(residency, index, MB)
            while residency.pending_bytes():
                time.sleep(0.001)
            residency.leave(index)


def damaged(content: bytearray) -> bytes:
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


#: What becomes of a compressed file, and the problem that is reported.
DAMAGES: dict[str, tuple[Callable[[bytearray], bytes], str]] = {
    "a flipped byte": (damaged, "was changed: "),
    "zeros": (lambda content: bytes(len(content)), "was changed: frame 0 cannot be decompressed: "),
    "half of it": (lambda content: bytes(content[: len(content) // 2]), "became shorter"),
    "another frame of zstd": (
        lambda content: zstandard.compress(bytes(24_000), 1).ljust(len(content), b"\0"),
        "was changed: frame ",
    ),
    "a frame that would become larger": (
        lambda content: zstandard.compress(bytes(1 << 30), 1)[: len(content)].ljust(len(content), b"\0"),
        "was changed: frame 0 cannot be decompressed: it has another size",
    ),
}


@pytest.mark.parametrize(("change", "problem"), DAMAGES.values(), ids=DAMAGES)
def test_compressed_weights_that_changed(
    change: Callable[[bytearray], bytes], problem: str, template: Step, tmp_path: Path
) -> None:
    """Either a frame cannot be decompressed, or the weights have another sha256; the next try says the same."""
    (step,) = bundle(tmp_path, template, [MB], [(0, 0)], [4])
    path = tmp_path / "partitions/0.weights.zst"
    path.write_bytes(change(bytearray(path.read_bytes())))
    residency = WeightResidency(tmp_path, [step])
    for _ in range(2):
        with pytest.raises(BundleError) as caught:
            residency.enter(0, again=False)
        assert str(caught.value).startswith(f"{path} {problem}")
        assert str(caught.value).endswith("; copy the bundle again")


def test_reading_goes_on_within_a_frame(template: Step, tmp_path: Path) -> None:
    """A pinned part may end within a frame; the rest of the weights is then read from that frame on."""
    (step,) = bundle(tmp_path, template, [MB], [(100_001, 0)], [2])
    residency = WeightResidency(tmp_path, [step])
    for _ in range(3):
        residency.enter(0, again=True)
        check(residency, 0, MB)
        residency.leave(0)


def test_compressed_weights_need_zstandard(template: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = bundle(tmp_path, template, [MB], [(0, 0)], [4])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(LibraryError) as caught:
        WeightResidency(tmp_path, steps)
    assert str(caught.value) == (
        "weights are compressed with zstandard, which is not installed; pip install 'hyps[compress]'"
    )


@pytest.mark.parametrize("verify", [True, False])
def test_weights_that_changed(verify: bool, template: Step, tmp_path: Path) -> None:
    """A change is noticed when weights are first read, also on the thread that reads ahead; and again at the next try."""
    steps = bundle(tmp_path, template, [MB, MB], [(0, MB), (0, 0)])
    path = tmp_path / "partitions/1.weights"
    path.write_bytes(bytes(MB))
    residency = WeightResidency(tmp_path, steps, verify=verify)
    for _ in range(2):
        residency.enter(0, again=False)
        residency.leave(0)
        if verify:
            with pytest.raises(BundleError, match=r"1\.weights was changed: its sha256 is not the manifest's"):
                residency.enter(1, again=False)
        else:
            residency.enter(1, again=False)


@pytest.mark.parametrize(("spoil", "problem"), [("shorter", "became shorter"), ("gone", "cannot read .*No such file")])
def test_weights_that_cannot_be_read(spoil: str, problem: str, template: Step, tmp_path: Path) -> None:
    steps = bundle(tmp_path, template, [MB], [(0, 0)])
    path = tmp_path / "partitions/0.weights"
    path.unlink() if spoil == "gone" else path.write_bytes(bytes(MB // 2))
    residency = WeightResidency(tmp_path, steps)
    with pytest.raises(BundleError, match=problem):
        residency.enter(0, again=False)


def resident_by_step(residency: WeightResidency, sizes: Sequence[int], rounds: int) -> list[int]:
    """Return the bytes at the end of each step, the most over all rounds."""
    most = [0] * len(sizes)
    before = memory().resident_bytes
    for _ in range(rounds):
        for index in range(len(sizes)):
            residency.enter(index, again=True)
            check_ends(residency, index)
            while residency.pending_bytes():
                pass
            most[index] = max(most[index], memory().resident_bytes - before)
            residency.leave(index)
    return most


def check_ends(residency: WeightResidency, index: int) -> None:
    for value in residency.values(index).values():
        found = to_numpy(value)
        assert (found[0], found[-1]) == (0, (found.size - 1) * (2 * index + 3) % 251)


@pytest.mark.own_process
def test_resident_are_the_pinned_the_own_and_what_is_read_ahead(template: Step, tmp_path: Path) -> None:
    """The test itself takes up to four megabytes."""
    sizes = [20 * MB, 8 * MB, 30 * MB, 12 * MB]
    plans = [(0, 2 * MB), (8 * MB, 4 * MB), (0, 6 * MB), (5 * MB, 10 * MB)]
    steps = bundle(tmp_path, template, sizes, plans)
    residency = WeightResidency(tmp_path, steps)
    pinned = sum(min(p, s) for (p, _), s in zip(plans, sizes, strict=True))
    most = resident_by_step(residency, sizes, 3)
    for index, ((own_pinned, ahead), size) in enumerate(zip(plans, sizes, strict=True)):
        planned = pinned + max(0, size - own_pinned) + ahead
        assert planned - 6 * MB < most[index] < planned + 4 * MB, f"step {index}"


@pytest.mark.own_process
def test_streamed_weights_are_pages_of_their_file(template: Step, tmp_path: Path) -> None:
    """Also next to pinned ones that fill no whole page."""
    (step,) = bundle(tmp_path, template, [20 * MB], [(MB + 1, 0)])
    residency = WeightResidency(tmp_path, [step])
    before = memory()
    residency.enter(0, again=False)
    after = memory()
    assert 18 * MB < after.file_bytes - before.file_bytes < 20 * MB
    assert after.anonymous_bytes - before.anonymous_bytes < 3 * MB


@pytest.mark.own_process
def test_an_inference_that_broke_off_leaves_no_more_than_the_next_has_room_for(template: Step, tmp_path: Path) -> None:
    steps = bundle(tmp_path, template, [MB, MB, 20 * MB], [(0, 0), (0, 20 * MB), (0, 0)])
    residency = WeightResidency(tmp_path, steps)
    before = memory().resident_bytes
    residency.enter(1, again=False)
    while residency.pending_bytes():
        time.sleep(0.001)
    residency.leave(1)
    assert memory().resident_bytes - before > 19 * MB
    residency.enter(0, again=False)
    assert memory().resident_bytes - before < 5 * MB


@pytest.mark.own_process
def test_making_room_keeps_the_pinned_alone(template: Step, tmp_path: Path) -> None:
    sizes, plans = [20 * MB, 30 * MB, 20 * MB], [(6 * MB, 0), (0, 20 * MB), (0, 0)]
    steps = bundle(tmp_path, template, sizes, plans)
    before = memory().resident_bytes
    residency = WeightResidency(tmp_path, steps)
    resident_by_step(residency, sizes, 2)
    residency.release()
    assert memory().resident_bytes - before < 10 * MB


def test_pinned_weights_are_read_once(template: Step, tmp_path: Path) -> None:
    """Their file may even be deleted afterwards."""
    steps = bundle(tmp_path, template, [MB, MB], [(MB, 0), (0, 0)])
    residency = WeightResidency(tmp_path, steps)
    for turn in range(2):
        residency.enter(0, again=False)
        check(residency, 0, MB)
        residency.leave(0)
        if not turn:
            (tmp_path / "partitions/0.weights").unlink()


def test_the_manifest_is_what_a_real_bundle_says(manifest: Manifest, tmp_path: Path) -> None:
    """A step without weights has none."""
    steps = tuple(msgspec.structs.replace(step, weights=None) for step in manifest.steps)
    residency = WeightResidency(tmp_path, steps)
    residency.enter(0, again=True)
    assert residency.values(0) == {}
    residency.leave(0)
