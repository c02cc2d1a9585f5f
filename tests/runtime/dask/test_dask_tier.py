"""Offload rests to a Dask cluster of real processes; when its scheduler dies, no answer is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from hyps.compiler.api import compile_model
from hyps.runtime.dask.dask_tier import DaskTier
from hyps.runtime.execution.loading import load_executor
from tests.compiler.onnxes import saved
from tests.exits import EXITS, WIDTH, exiting_network, write_table
from tests.runtime.dask.farm import Farm
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture
def farm(tmp_path: Path, bin_folder: Path) -> Iterator[Farm]:
    with ExitStack() as stack:
        started = Farm(stack, tmp_path, bin_folder)
        started.start_scheduler()
        started.start_worker("w0")
        yield started


def test_rests_are_computed_by_dask(farm: Farm, tmp_path: Path, hyps_run: Callable[..., CompletedProcess[str]]) -> None:
    bundle = tmp_path / "bundle"
    compile_model(saved(tmp_path / "n.onnx", exiting_network()), bundle, memory_bytes=140_000_000, exits=["auto"])
    sample = {"x": np.random.default_rng(1).standard_normal((1, WIDTH)).astype(np.float32)}
    np.save(tmp_path / "x.npy", sample["x"])
    right = load_executor(bundle).run(sample)
    policy = write_table(bundle, tmp_path / "p.json", ["stay", "offload", "stay"])
    inputs = [tmp_path / "x.npy"] * 3
    options = ["--exit-policy", policy, "--offload", farm.url, "--offload-wait", f"{PATIENCE_S:.0f}s", "--json"]
    done = hyps_run(bundle, *inputs, *options)
    assert "exceeded" not in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        offload = record["exit"]["offload"]
        assert (offload["after_exit"], offload["at"], offload["sent_bytes"]) == (2, farm.url, 4 * WIDTH)
        assert record["top"][0]["score"] == pytest.approx(float(right["scores"].max()), abs=1e-9)
    told: list[str] = []
    with closing(DaskTier(bundle, farm.url, told.append, [2])) as tier:
        tier.wait(PATIENCE_S)
        assert tier.link(2)
        assert tier.link(1) is None
        executor = load_executor(bundle)
        held = dict(sample)
        for index in range(executor.manifest.exits[1].after_step + 1):
            with executor.step(index, again=False) as ready:
                ready.run(held)
        rest = {name: held[name] for name in executor.manifest.steps[executor.manifest.exits[1].after_step + 1].inputs}
        answer = tier.complete(2, rest, PATIENCE_S)
        assert [*answer.outputs] == [*EXITS[2:]]
        assert all(np.array_equal(answer.outputs[name], right[name]) for name in answer.outputs)
        farm.kill("scheduler")
        assert tier.complete(2, rest, PATIENCE_S).problem
        wait_for("the lost link", lambda: tier.link() is None)
