"""A Dask worker's tasks, run without Dask: the same bits, pinned weights stay, other sub-bundles make room."""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hyps.compiler.api import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.dask.task_plan import one_task_plan
from hyps.runtime.dask.tasks import SubBundleStore, Ticket
from hyps.runtime.errors import BudgetError, InputError
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.exits.policies import NeverExit, ThresholdPolicy
from tests.compiler.onnxes import saved
from tests.exits import EXITS, WIDTH, exiting_network


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


@pytest.mark.parametrize("inputs", [1, 3])
def test_each_input_ends_at_its_exit(server: FileServer, tmp_path: Path, inputs: int) -> None:
    saved(tmp_path / "net.onnx", exiting_network())
    compile_model(tmp_path / "net.onnx", tmp_path / "bundle", memory_bytes=66_000_000, tier="lean", exits=["auto"])
    manifest = read_manifest(tmp_path / "bundle")
    plan = one_task_plan(manifest, {"worker": 136_000_000}, 3, inputs)
    (stage,) = plan.stages
    assert stage.part.exits == manifest.exits
    samples = [{"x": np.full((1, WIDTH), scale, np.float32)} for scale in (0.1, 1.0, 30.0)][:inputs]
    made = SubBundleStore(tmp_path / "cache", threads=1)
    local = load_executor(tmp_path / "bundle", threads=1)
    policy = ThresholdPolicy([2.0, 0.0, 0.0])
    answers = made.answers(ticket(server, tmp_path / "bundle", stage.part, inputs), [samples], policy)
    for sample, answer in zip(samples, answers, strict=True):
        assert not isinstance(answer, InputError)
        outputs, report = pickle.loads(pickle.dumps(answer))
        whole = local.run(sample)
        assert list(outputs) == list(EXITS[:2])
        assert all(outputs[name].tobytes() == whole[name].tobytes() for name in outputs)
        assert (report.output, report.ended_by) == (EXITS[1], "policy")


def test_a_deadline_ends_inferences_by_what_earlier_tasks_took(server: FileServer, tmp_path: Path) -> None:
    """The second task knows the times of the first: nothing behind the first exit would be there in a microsecond."""
    saved(tmp_path / "net.onnx", exiting_network())
    compile_model(tmp_path / "net.onnx", tmp_path / "bundle", memory_bytes=66_000_000, tier="lean", exits=["auto"])
    (stage,) = one_task_plan(read_manifest(tmp_path / "bundle"), {"worker": 136_000_000}, 3, 1).stages
    made, sample = SubBundleStore(tmp_path / "cache", threads=1), {"x": np.ones((1, WIDTH), np.float32)}
    found = []
    for deadline_s in (math.inf, 1e-6, math.inf):
        part = ticket(server, tmp_path / "bundle", stage.part, 1)
        (answer,) = made.answers(part, [[sample]], NeverExit(), deadline_s)
        assert not isinstance(answer, InputError)
        assert answer[1]
        found.append((answer[1].number, answer[1].ended_by, answer[1].late_s > 0))
    assert found == [(4, "network", False), (1, "deadline", True), (4, "network", False)]


def test_a_worker_that_cannot_run_every_step_has_no_policy(tmp_path: Path) -> None:
    saved(tmp_path / "net.onnx", exiting_network())
    compile_model(tmp_path / "net.onnx", tmp_path / "bundle", memory_bytes=66_000_000, tier="lean", exits=["auto"])
    with pytest.raises(BudgetError, match="each worker runs every step"):
        one_task_plan(read_manifest(tmp_path / "bundle"), {"worker": 100_000_000}, 3, 1)
