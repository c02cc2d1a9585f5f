"""The workspace that the cost model counts for an operator is never below what onnxruntime says it allocated."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime as ort
import pytest

from hyps.compiler.model_io.load import load_model
from hyps.compiler.model_io.ort_shapes import OrtShapes
from hyps.compiler.validate import random_inputs
from hyps.models.catalogue import NETWORKS
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.graph import Operator, view
from hyps.passes.shapes import infer_shapes
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.session import session_options
from tests.regression.budgets import compiled

pytestmark = pytest.mark.regression

SHARED = sorted((Path(__file__).parents[3] / "shared" / "data" / "models").rglob("*.onnx"))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if not network.trained])
def test_reference_network(name: str, threads: int, network: Callable[[str], Path], tmp_path: Path) -> None:
    check(network(name), threads, tmp_path)


@pytest.mark.skipif(not SHARED, reason="no ../shared/data")
@pytest.mark.parametrize("model", SHARED, ids=lambda model: model.stem)
def test_shared_model(model: Path, tmp_path: Path) -> None:
    check(model, 1, tmp_path)


def check(model: Path, threads: int, folder: Path) -> None:
    """Run a model in one partition; onnxruntime tells what each of its nodes allocated for itself."""
    if compiled(model, folder / "bundle", 10**11) is None:
        pytest.skip("refused, which test_predictions.py knows of")
    manifest = read_manifest(folder / "bundle")
    partition, told = folder / "bundle" / manifest.steps[0].model.path, folder / "statistics.csv"
    options = session_options(threads)
    options.add_session_config_entry("session.collect_node_memory_stats_to_file", str(told))
    session = ort.InferenceSession(partition, options, providers=["CPUExecutionProvider"])
    session.run(None, next(random_inputs(manifest, 1)))
    with load_model(partition) as loaded:
        graph = view(infer_shapes(loaded.model, OrtShapes()))
        prints = footprints(graph, threads)
    widened = {
        name: prints[each.name].output_bytes
        for each in graph.operators
        if each.op_type == "DequantizeLinear"
        for name in each.outputs
    }
    counted = {
        each.name: prints[each.name].workspace_bytes + _not_there(each, prints[each.name], widened)
        for each in graph.operators
    }
    with told.open() as lines:
        temporary = {row["#name"]: int(row["total_temp_allocations"]) for row in csv.DictReader(lines)}
    known = {node: name for node in temporary if (name := node.rsplit("_", 1)[0].removeprefix("fused ")) in counted}
    assert known
    assert not {name: (temporary[node], counted[name]) for node, name in known.items() if temporary[node] > counted[name]}


def _not_there(operator: Operator, footprint: Footprint, widened: Mapping[str, int]) -> int:
    """What is counted for an operator that runs in 8 bits, and is not there: the floats that it seems to read and write."""
    floats = [widened[name] for name in operator.inputs if name in widened]
    return footprint.output_bytes + sum(floats) if floats else 0
