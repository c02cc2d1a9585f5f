"""Tables of which the runtime reads the rows that an input asks for: within the budget, the same bits, one copy on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto

from hyps.runtime.bundle.batch_schedule import batch_manifest
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.batch import run_batch
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, session_options
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.graphs import scalar
from tests.compiler.onnxes import Array, node, weight
from tests.compiler.tables import ROWS, WIDTH, ids, lookup, table

BUDGET_BYTES = 60_000_000


def twice() -> ModelProto:
    """Two lookups in one table; the second's indices are computed."""
    nodes = [
        node("Gather", "table ids", "e"),
        node("Add", "ids ids", "others"),
        node("Gather", "table others", "f"),
        node("Add", "e f", "y"),
    ]
    return lookup(*nodes, result=(1, 8, WIDTH), weights=[table()])


def tied(*, layers: bool = False) -> ModelProto:
    """A table that the last product reads, too; ``layers`` puts others between, of 17 MB."""
    nodes = [node("Gather", "table ids", "e"), node("Relu", "e", "r"), node("Gemm", "r table", "y", transB=1)]
    weights = [table(rows=20_000)]
    if layers:
        nodes[1:2] = [node("MatMul", "e wide", "w"), node("MatMul", "w narrow", "r")]
        weights += [weight("wide", WIDTH, 8192), weight("narrow", 8192, WIDTH)]
    return lookup(*nodes, shape=(8,), result=(8, 20_000), weights=weights)


def quantised() -> ModelProto:
    """A table of int8, whose rows become floats; its indices are of 32 bits."""
    nodes = [node("Gather", "table ids", "e"), node("DequantizeLinear", "e scale", "y")]
    weights = [table(rows=4 * ROWS, dtype=np.int8), scalar("scale", 0.25)]
    return lookup(*nodes, shape=(2, 3), result=(2, 3, WIDTH), kind=TensorProto.INT32, weights=weights, opset=21)


def one_row() -> ModelProto:
    """A single row, by a negative axis."""
    nodes = [node("Gather", "table ids", "e", axis=-2), node("Tanh", "e", "y")]
    return lookup(*nodes, shape=(), result=(WIDTH,), weights=[table()])


def result_itself() -> ModelProto:
    return lookup(node("Gather", "table ids", "y"), result=(1, 8, WIDTH), weights=[table()])


MODELS: Mapping[str, tuple[Callable[[], ModelProto], Array]] = {
    "float32": (lookup, ids()),
    "twice": (twice, ids(ROWS // 2)),
    "tied": (tied, ids(20_000, (8,))),
    "int8": (quantised, ids(4 * ROWS, (2, 3), np.int32)),
    "one row": (one_row, ids(shape=())),
    "an output": (result_itself, ids()),
}


def expected(bundle: Bundle, given: Array) -> Array:
    """Return what the whole model computes in onnxruntime."""
    session = ort.InferenceSession(bundle.model, session_options(2), providers=["CPUExecutionProvider"])
    found: Array = session.run(["y"], {"ids": given})[0]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_within_the_budget_and_the_same_bits(name: str, compiled: Compile, hyps_run: Command, tmp_path: Path) -> None:
    make, given = MODELS[name]
    bundle = compiled(make(), budget_bytes=BUDGET_BYTES)
    assert bundle.compiled.plan.exact
    assert any(step.rows for step in bundle.compiled.manifest.steps)
    np.save(tmp_path / "ids.npy", given)
    done = hyps_run(bundle.folder, tmp_path / "ids.npy", "--json", "--save", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["peak_rss_bytes"] <= bundle.compiled.plan.peak_bytes <= BUDGET_BYTES
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["y"], expected(bundle, given))


def test_the_plan_says_what_is_read(compiled: Compile) -> None:
    made = compiled(lookup(), budget_bytes=BUDGET_BYTES)
    step, *_ = made.compiled.manifest.steps
    said = "reads 8 of 100,000 rows of table, 0.008 MB of 102.4 MB"
    assert str(step.reason) == f"first: {said}; starts at the model's input"
    assert [change.why for change in made.compiled.plan.changes if change.what == "read by rows"] == [
        f"its step {said}, which is never held whole"
    ]
    assert made.compiled.plan.smallest_budget_bytes < BUDGET_BYTES < made.compiled.plan.whole_peak_bytes


def test_a_model_that_fits_is_held_whole(compiled: Compile) -> None:
    plan = compiled(lookup(), budget_bytes=200_000_000).compiled.plan
    assert len(plan.partitions) == 1
    assert plan.smallest_budget_bytes < BUDGET_BYTES


def test_a_table_is_on_disk_once(compiled: Compile) -> None:
    """Two lookups share it, and so does an operator that needs it whole, if that is not split."""
    once = 4 * ROWS * WIDTH + 100_000
    assert sum(file.size_bytes for file in compiled(twice(), budget_bytes=BUDGET_BYTES).compiled.manifest.files) < once
    small = compiled(tied(layers=True), budget_bytes=83_000_000, split="layers", force=True)
    step, *_ = small.compiled.manifest.steps
    assert step.rows
    assert sum(file.size_bytes for file in small.compiled.manifest.files) < 4 * WIDTH * (20_000 + 2 * 8192) + 100_000
    given = ids(20_000, (8,))
    np.testing.assert_array_equal(load_executor(small.folder, threads=2).run({"ids": given})["y"], expected(small, given))


def test_a_partition_that_reads_rows_is_an_ordinary_model(compiled: Compile) -> None:
    bundle = compiled(result_itself(), budget_bytes=BUDGET_BYTES)
    (path,) = bundle.partitions
    session = ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"ids": ids()})[0], expected(bundle, ids()))


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1])
def test_an_index_beyond_the_table_is_an_error_as_in_onnxruntime(
    index: int, compiled: Compile, hyps_run: Command, tmp_path: Path
) -> None:
    bundle = compiled(lookup(), budget_bytes=BUDGET_BYTES)
    given = ids()
    given[0, 4] = index
    with pytest.raises(Exception, match=f"idx={index} must be within the inclusive range \\[-{ROWS},{ROWS - 1}\\]"):
        expected(bundle, given)
    np.save(tmp_path / "ids.npy", given)
    done = hyps_run(bundle.folder, tmp_path / "ids.npy")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"hyps-run: {tmp_path / 'ids.npy'}: tensor 'ids' holds the index {index}, and 'table' has 100,000 rows; "
        f"give indices from -{ROWS} to {ROWS - 1}"
    ]


def test_a_batch_reads_rows_for_each_input(compiled: Compile) -> None:
    bundle = compiled(tied(), budget_bytes=BUDGET_BYTES)
    given = [ids(20_000, (8,), seed=seed) for seed in range(5)]
    given[2][0] = 20_000
    manifest = batch_manifest(bundle.compiled.manifest, len(given))
    assert manifest.streams_weights
    executor = load_executor(bundle.folder, threads=2, adapt=lambda _: manifest)
    found = sorted(run_batch(executor, in_memory({"ids": each} for each in given)), key=lambda result: result.number)
    assert [result.error is not None for result in found] == [False, False, True, False, False]
    for result in found[:2] + found[3:]:
        np.testing.assert_array_equal(result.outputs["y"], expected(bundle, given[result.number]))


def test_a_changed_table_is_found_before_a_row_is_used(compiled: Compile) -> None:
    bundle = compiled(lookup(), budget_bytes=BUDGET_BYTES)
    rows = bundle.compiled.manifest.steps[0].rows
    assert rows
    with (bundle.folder / rows.path).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xaa")
    executor = load_executor(bundle.folder, threads=1)
    with pytest.raises(BundleError, match=r"00-e\.weights was changed: its sha256 is not the manifest's"):
        executor.run({"ids": np.zeros((1, 8), np.int64)})


def test_code_that_only_the_first_session_needs_is_given_back_after_a_lookup(
    compiled: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup opens no session. all-MiniLM-L6-v2 took 5 MB more where only the first step's end gave these pages back."""
    bundle = compiled(lookup(), budget_bytes=BUDGET_BYTES)
    events: list[str] = []

    def opener(*arguments: Any, **options: Any) -> Session:
        events.append("open")
        return open_session(*arguments, **options)

    executor = load_executor(bundle.folder, threads=1, opener=opener)
    monkeypatch.setattr(executor, "trim", lambda: events.append("trim"))
    executor.run({"ids": ids()})
    assert events == ["trim", "open", "trim"]
