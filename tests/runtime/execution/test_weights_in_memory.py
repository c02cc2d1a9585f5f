"""A step's weights are in memory when it runs, whatever is pinned, read ahead or broken off; and no more than planned."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.manifest import Manifest, Step, WeightRecord, WeightsRecord
from hyps.runtime.bundle.weight_arena import ALIGNMENT_BYTES
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.execution.weight_residency import WeightResidency

MB = 1 << 20


def bundle(folder: Path, template: Step, sizes: Sequence[int], plans: Sequence[tuple[int, int]]) -> tuple[Step, ...]:
    """Write weights of these sizes (0: none, else `expected`); return steps with these (pinned, ahead) bytes."""
    (folder / "partitions").mkdir(parents=True, exist_ok=True)
    steps = []
    for index, (size, (pinned, ahead)) in enumerate(zip(sizes, plans, strict=True)):
        record = None
        if size:
            content = expected(index, size).tobytes()
            (folder / f"partitions/{index}.weights").write_bytes(content)
            record = WeightsRecord(
                path=f"partitions/{index}.weights",
                size_bytes=size,
                sha256=hashlib.sha256(content).hexdigest(),
                tensors=(WeightRecord(name="w", dtype="uint8", shape=(size,), offset=0),),
            )
        steps.append(
            msgspec.structs.replace(
                template, weights=record, pinned_bytes=min(pinned, size), ahead_bytes=ahead, peak_bytes=1, alone_bytes=1
            )
        )
    return tuple(steps)


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


SIZES = st.integers(0, 6).map(lambda units: units * ALIGNMENT_BYTES // 2)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_every_step_finds_its_weights(data: st.DataObject, template: Step, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over several inferences, some of which break off at a step and some with their successors' weights read ahead."""
    sizes = data.draw(st.lists(SIZES, min_size=1, max_size=7), "sizes")
    plans = data.draw(st.lists(st.tuples(SIZES, SIZES), min_size=len(sizes), max_size=len(sizes)), "pinned, ahead")
    folder = tmp_path_factory.mktemp("steps")
    steps = bundle(folder, template, sizes, plans)
    tight = data.draw(st.booleans(), "tight")
    steady = data.draw(st.booleans(), "steady")
    huge, cached = data.draw(st.booleans(), "huge"), data.draw(st.booleans(), "cached")
    residency = WeightResidency(folder, steps, 1 if tight else 1 << 40, huge=huge, steady=steady, keep_cached=cached)
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
    residency = WeightResidency(tmp_path, steps, 1 << 40)
    for stop in (broken_off_at, len(steps) - 1):
        for index in range(stop + 1):
            residency.enter(index, again=False)
            check(residency, index, MB)
            while residency.pending_bytes():
                time.sleep(0.001)
            residency.leave(index)


@pytest.mark.parametrize("verify", [True, False])
def test_weights_that_changed(verify: bool, template: Step, tmp_path: Path) -> None:
    """A change is noticed when weights are first read, also on the thread that reads ahead; and again at the next try."""
    steps = bundle(tmp_path, template, [MB, MB], [(0, MB), (0, 0)])
    path = tmp_path / "partitions/1.weights"
    path.write_bytes(bytes(MB))
    residency = WeightResidency(tmp_path, steps, 1 << 40, verify=verify)
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
    residency = WeightResidency(tmp_path, steps, 1 << 40)
    with pytest.raises(BundleError, match=problem):
        residency.enter(0, again=False)


def resident_by_step(residency: WeightResidency, sizes: Sequence[int], rounds: int) -> list[int]:
    """Return the anonymous bytes at the end of each step, the most over all rounds."""
    most = [0] * len(sizes)
    before = memory().anonymous_bytes
    for _ in range(rounds):
        for index in range(len(sizes)):
            residency.enter(index, again=True)
            check_ends(residency, index)
            while residency.pending_bytes():
                pass
            most[index] = max(most[index], memory().anonymous_bytes - before)
            residency.leave(index)
    return most


def check_ends(residency: WeightResidency, index: int) -> None:
    for value in residency.values(index).values():
        found = to_numpy(value)
        assert (found[0], found[-1]) == (0, (found.size - 1) * (2 * index + 3) % 251)


@pytest.mark.own_process
def test_resident_are_the_pinned_the_own_and_what_is_read_ahead(template: Step, tmp_path: Path) -> None:
    """There is no room for what older steps leave in the arena. The test itself takes up to four megabytes."""
    sizes = [20 * MB, 8 * MB, 30 * MB, 12 * MB]
    plans = [(0, 2 * MB), (8 * MB, 4 * MB), (0, 6 * MB), (5 * MB, 10 * MB)]
    steps = bundle(tmp_path, template, sizes, plans)
    residency = WeightResidency(tmp_path, steps, 1)
    pinned = sum(min(p, s) for (p, _), s in zip(plans, sizes, strict=True))
    most = resident_by_step(residency, sizes, 3)
    for index, ((own_pinned, ahead), size) in enumerate(zip(plans, sizes, strict=True)):
        planned = pinned + max(0, size - own_pinned) + ahead
        assert planned - 6 * MB < most[index] < planned + 4 * MB, f"step {index}"


@pytest.mark.own_process
def test_making_room_keeps_the_pinned_alone(template: Step, tmp_path: Path) -> None:
    sizes, plans = [20 * MB, 30 * MB, 20 * MB], [(6 * MB, 0), (0, 20 * MB), (0, 0)]
    steps = bundle(tmp_path, template, sizes, plans)
    before = memory().anonymous_bytes
    residency = WeightResidency(tmp_path, steps, 1 << 40)
    resident_by_step(residency, sizes, 2)
    residency.release()
    assert memory().anonymous_bytes - before < 10 * MB


def test_pinned_weights_are_read_once(template: Step, tmp_path: Path) -> None:
    """Their file may even be deleted afterwards."""
    steps = bundle(tmp_path, template, [MB, MB], [(MB, 0), (0, 0)])
    residency = WeightResidency(tmp_path, steps, 1 << 40)
    for turn in range(2):
        residency.enter(0, again=False)
        check(residency, 0, MB)
        residency.leave(0)
        if not turn:
            (tmp_path / "partitions/0.weights").unlink()


def test_the_manifest_is_what_a_real_bundle_says(manifest: Manifest, tmp_path: Path) -> None:
    """A step without weights has none."""
    steps = tuple(msgspec.structs.replace(step, weights=None) for step in manifest.steps)
    residency = WeightResidency(tmp_path, steps, 1)
    residency.enter(0, again=True)
    assert residency.values(0) == {}
    residency.leave(0)
