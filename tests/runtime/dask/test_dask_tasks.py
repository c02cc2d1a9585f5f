"""A Dask worker's tasks, run without Dask: the same bits, pinned weights stay, other sub-bundles make room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.dask.tasks import SubBundleStore, Ticket
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import load_executor


@pytest.fixture
def server() -> Iterator[FileServer]:
    made = FileServer("127.0.0.1", tls=False)
    yield made
    made.close()


def ticket(server: FileServer, bundle: Path, part: Manifest, inputs: int) -> Ticket:
    document = encode_manifest(part)
    sha256 = hashlib.sha256(document).hexdigest()
    shelf: dict[str, Path | bytes] = {sha256: document, **{file.sha256: bundle / file.path for file in part.files}}
    orders = Orders(epoch=0, url=server.url, token=server.grant(sha256, shelf))
    return Ticket(orders=orders, order=SubBundleOrder(number=0, sha256=sha256, size_bytes=len(document)), inputs=inputs)


@pytest.mark.parametrize("inputs", [1, 3])
def test_some_weights_are_pinned_unless_inputs_go_together(
    layers: Path, server: FileServer, tmp_path: Path, inputs: int
) -> None:
    manifest = read_manifest(layers)
    budget = max(step.alone_bytes for step in manifest.steps) + 2_000_000
    (part,) = sub_bundles(manifest, [range(len(manifest.steps))], budget)
    pinned = sum(step.pinned_bytes for step in part.steps)
    assert 0 < pinned < sum(step.weights.size_bytes for step in part.steps if step.weights)
    generator = np.random.default_rng(1)
    samples = [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(inputs)]
    made = SubBundleStore(tmp_path, threads=1)
    found = made.compute(ticket(server, layers, part, inputs), [[*samples, InputError("bad")]])
    local = load_executor(layers, threads=1)
    for sample, result in zip(samples, found[:-1], strict=True):
        assert not isinstance(result, InputError)
        assert result["scores"].tobytes() == local.run(sample)["scores"].tobytes()
    assert isinstance(found[-1], InputError)
    (loaded,) = made.loaded
    assert sum(step.pinned_bytes for step in loaded.steps) == (pinned if inputs == 1 else 0)


def test_sub_bundles_make_room_for_each_other(layers: Path, server: FileServer, tmp_path: Path) -> None:
    """Each sub-bundle was planned for a process of its own, so that only one is loaded at a time."""
    manifest = read_manifest(layers)
    budget = max(step.alone_bytes for step in manifest.steps) + 2_000_000
    parts = [sub_bundles(manifest, [run], budget)[0] for run in (range(7), range(7, 14))]
    made = SubBundleStore(tmp_path, threads=1)
    held = image = {"image": np.zeros((1, 3, 32, 32), np.float32)}
    for part in parts:
        (result,) = made.compute(ticket(server, layers, part, 1), [[held]])
        assert not isinstance(result, InputError)
        held = dict(result)
        assert len(made.loaded) == 1
    assert held["scores"].tobytes() == load_executor(layers, threads=1).run(image)["scores"].tobytes()
