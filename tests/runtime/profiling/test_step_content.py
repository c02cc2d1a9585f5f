"""The key of a step: equal for equal work, whatever its names, its file and its weights are; different for other work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hyps.compiler import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.errors import BundleError
from hyps.runtime.profiling.step_content import StepContent, step_contents


def bundle(
    folder: Path, prefix: str = "", *, seed: int = 0, side: int = 12, pads: int = 1, group: int = 1, target: int = 288
) -> Path:
    """Compile Conv, Relu, Reshape: the shape is a constant of integers, as exporters write it."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((8, 8 // group, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv", [f"{prefix}x", f"{prefix}w"], [f"{prefix}c"], name=f"{prefix}conv", pads=[pads] * 4, group=group
        ),
        helper.make_node("Relu", [f"{prefix}c"], [f"{prefix}r"], name=f"{prefix}relu"),
        helper.make_node("Reshape", [f"{prefix}r", f"{prefix}s"], [f"{prefix}y"], name=f"{prefix}reshape"),
    ]
    out = side + 2 * pads - 2
    shape = [-1, target]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f"{prefix}x", TensorProto.FLOAT, [1, 8, side, side])],
        [helper.make_tensor_value_info(f"{prefix}y", TensorProto.FLOAT, [8 * out * out // target, target])],
        [
            numpy_helper.from_array(kernel, f"{prefix}w"),
            numpy_helper.from_array(np.array(shape, np.int64), f"{prefix}s"),
        ],
    )
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    compile_model(path, folder / "bundle", memory_bytes=90_000_000, tier="lean")
    return folder / "bundle"


def contents(folder: Path) -> tuple[StepContent, ...]:
    return step_contents(folder, read_manifest(folder))


def test_names_and_weights_do_not_matter(tmp_path: Path) -> None:
    (first,) = contents(bundle(tmp_path / "a"))
    (again,) = contents(bundle(tmp_path / "b", "other/", seed=1))
    assert first == again
    assert first.kind == "Conv"
    assert first.multiply_adds == 12 * 12 * 8 * 8 * 9
    assert first.operators == 3


@pytest.mark.parametrize(
    "change",
    [{"side": 24}, {"pads": 0, "side": 14}, {"group": 2}, {"target": 576}],
    ids=["another shape", "another attribute", "groups", "another constant shape"],
)
def test_other_work_has_another_key(tmp_path: Path, change: dict[str, Any]) -> None:
    (first,) = contents(bundle(tmp_path / "a"))
    (other,) = contents(bundle(tmp_path / "b", **change))
    assert first.key != other.key


def test_a_convolution_in_groups_is_of_another_kind(tmp_path: Path) -> None:
    (found,) = contents(bundle(tmp_path / "a", group=2))
    assert found.kind == "grouped Conv"


def test_the_bytes_that_a_step_moves(layers: Path) -> None:
    manifest = read_manifest(layers)
    last = contents(layers)[-1]
    assert last.tensor_bytes == 1024 * 4 + 10 * 4
    assert last.weight_bytes == manifest.steps[-1].weight_bytes
    assert last.moved_bytes == last.tensor_bytes + last.weight_bytes


def test_equal_steps_of_bundles_for_other_budgets_have_equal_keys(layers: Path, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    compile_model(root / "models/cifar10_vgg.onnx", other, memory_bytes=120_000_000, split="layers", tier="lean")
    known, again = contents(layers), contents(other)
    assert [each.key for each in known] == [each.key for each in again]
    assert len({each.key for each in known}) == len(known)


def test_a_file_that_is_no_model_is_named(layers: Path, tmp_path: Path) -> None:
    manifest = read_manifest(layers)
    place = tmp_path / manifest.steps[0].model.path
    place.parent.mkdir()
    for content in (b"", b"\xff" * 100, (layers / manifest.steps[0].model.path).read_bytes()[:-50]):
        place.write_bytes(content)
        with pytest.raises(BundleError, match=r"00-relu1_1\.onnx is no ONNX model"):
            step_contents(tmp_path, manifest)
