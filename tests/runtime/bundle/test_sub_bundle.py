"""A sub-bundle is a bundle: fewer steps, only their files, the same executor, the same bits."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.compiler import compile_model
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.sub_bundle import boundary, sub_bundles
from hyps.runtime.errors import BudgetError
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.scheduling.test_flow import scheduled

MB = 1_000_000


def write(bundle: Path, part: Manifest, folder: Path) -> Path:
    """Write the sub-bundle to a folder, with its files and no others."""
    (folder / "partitions").mkdir(parents=True)
    for file in part.files:
        shutil.copy(bundle / file.path, folder / file.path)
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(part))
    return folder


def picture() -> NDArray[Any]:
    return np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("budget_bytes", [72 * MB, 64 * MB], ids=["all pinned", "streamed"])
@pytest.mark.parametrize("bounds", [(0, 14), (0, 5, 14), (0, 1, 2, 9, 13, 14)], ids=str)
def test_sub_bundles_one_after_the_other_make_the_same_bits(
    layers: Path, tmp_path: Path, bounds: tuple[int, ...], budget_bytes: int
) -> None:
    manifest = read_manifest(layers)
    held = {"image": picture()}
    expected = load_executor(layers).run(held)
    runs = [range(*pair) for pair in itertools.pairwise(bounds)]
    assert runs[-1].stop == len(manifest.steps)
    for number, part in enumerate(sub_bundles(manifest, runs, budget_bytes)):
        executor = load_executor(write(layers, part, tmp_path / str(number)), threads=1)
        held = executor.run(held)
        assert [*held] == [output.name for output in part.outputs]
    assert held["scores"].tobytes() == expected["scores"].tobytes()


def test_sub_bundles_of_compressed_weights(root: Path, layers: Path, tmp_path: Path) -> None:
    """Their files are the compressed ones, whose sha256 a worker checks when it has fetched them."""
    bundle = tmp_path / "bundle"
    model = root / "models/cifar10_vgg.onnx"
    compile_model(model, bundle, target="rpi3b", memory_bytes=72 * MB, split="layers", compress_weights=True)
    manifest = read_manifest(bundle)
    held = {"image": picture()}
    expected = load_executor(layers).run(held)
    for number, part in enumerate(sub_bundles(manifest, [range(9), range(9, 14)], 66 * MB)):
        assert part.has_compressed_weights
        folder = write(bundle, part, tmp_path / str(number))
        check_files(folder, part)
        held = load_executor(folder, threads=1).run(held)
    assert held["scores"].tobytes() == expected["scores"].tobytes()


def test_a_sub_bundle_tells_nothing_of_the_others(layers: Path) -> None:
    manifest = read_manifest(layers)
    (part,) = sub_bundles(manifest, [range(4, 6)], 72 * MB)
    text = encode_manifest(part).decode()
    assert all(step.name not in text for index, step in enumerate(manifest.steps) if index not in (4, 5))
    assert set(part.tensors) == {"relu2_1", "relu2_2", "pool2"}
    assert manifest.model.name not in text
    assert (part.labels, part.preprocess) == (None, None)


def test_weights_are_pinned_as_far_as_there_is_room(layers: Path) -> None:
    manifest = read_manifest(layers)
    alone_bytes = max(step.alone_bytes for step in manifest.steps)
    weights = [step.weights.size_bytes if step.weights else 0 for step in manifest.steps]
    for room_bytes in (0, 500_000, 2 * MB, 6 * MB, 20 * MB):
        parts = sub_bundles(manifest, [range(7), range(7, 14)], alone_bytes + room_bytes)
        pinned = [step.pinned_bytes for part in parts for step in part.steps]
        assert all(pin in (0, size) for pin, size in zip(pinned, weights, strict=True))
        assert sum(pinned) <= room_bytes
        slack_bytes = HUGE_SLACK_BYTES if parts[0].huge_pages else 0
        assert all(step.peak_bytes + slack_bytes <= alone_bytes + room_bytes for part in parts for step in part.steps)
    assert pinned == weights
    assert slack_bytes
    assert all(step.session.stays_open for part in parts for step in part.steps)


def test_a_step_that_does_not_fit_is_refused(layers: Path) -> None:
    with pytest.raises(BudgetError, match=r"^step \d\d-\w+ needs [56]\d\.\d MB, a process may have 50\.0 MB$"):
        sub_bundles(read_manifest(layers), [range(14)], 50 * MB)


def test_boundary_of_a_residual(manifest: Manifest) -> None:
    def step(reads: str, makes: str) -> Any:
        return msgspec.structs.replace(manifest.steps[0], inputs=tuple(reads.split()), outputs=tuple(makes.split()))

    steps = (step("image", "a"), step("a", "b"), step("b a", "c"), step("c image", "scores"))
    changed = msgspec.structs.replace(manifest, steps=steps)
    assert boundary(changed, range(2)) == (("image",), ("a", "b"))
    assert boundary(changed, range(1, 3)) == (("a",), ("c",))
    assert boundary(changed, range(4)) == (("image",), ("scores",))


def test_an_input_that_a_later_step_reads_first_is_kept_until_then(manifest: Manifest) -> None:
    """A run of steps may begin between two branches: its first step does not read the other branch's tensor."""
    made = scheduled(manifest, ("x", "a"), ("a", "b"), ("a", "c"), ("b c", "y"))
    (part,) = sub_bundles(made, [range(2, 4)], 100_000_000)
    assert part.inputs == ("a", "b")
    assert part.steps[0].live == ("b", "c")
