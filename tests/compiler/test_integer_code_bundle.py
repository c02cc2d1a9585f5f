"""Bundles of 8-bit networks with codes: exact without losses, and exact when decoded, for every pattern of losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.compiler import compile_model
from hyps.compiler.cli.validate import _lines
from hyps.compiler.validate import Deviation, Validation, random_inputs, validate
from hyps.passes.errors import UnsupportedModel
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.device.instruction_set import instruction_set
from tests.compiler.conftest import Command
from tests.compiler.onnxes import saved
from tests.compiler.test_validate import rewritten
from tests.saturation import without_saturation

MB = 1_000_000


def quantised() -> ModelProto:
    """Return QuantizeLinear, QLinearConv of 64 channels with 0.5 MB of weights, DequantizeLinear: x [1, 64, 12, 12] to y."""
    random = np.random.default_rng(0)
    constants = {
        "x.scale": np.float32(0.03),
        "x.zero": np.uint8(120),
        "w": without_saturation(random.integers(-128, 128, (512, 64, 4, 4)).astype(np.int8)),
        "w.scale": random.uniform(0.001, 0.002, 512).astype(np.float32),
        "w.zero": np.zeros(512, np.int8),
        "y.scale": np.float32(0.2),
        "y.zero": np.uint8(100),
        "b": random.integers(-999, 999, 512).astype(np.int32),
    }
    names = ["q", "x.scale", "x.zero", "w", "w.scale", "w.zero", "y.scale", "y.zero", "b"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["q"], "quantise"),
        helper.make_node("QLinearConv", names, ["c"], "conv", pads=[1, 1, 2, 2]),
        helper.make_node("DequantizeLinear", ["c", "y.scale", "y.zero"], ["y"], "dequantise"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 12, 12])
        for name, channels in (("x", 64), ("y", 512))
    ]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "quantised", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("parity", [1, 2])
def test_a_quantised_convolution_has_an_exact_code(parity: int, tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", quantised()), tmp_path / "b"
    compile_model(source, bundle, memory_bytes=100 * MB, codes={"conv": parity})
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    (code,) = manifest.codes
    assert (len(code.shards), len(code.parity), code.error_bound) == (4, parity, 0)
    assert manifest.exact
    assert {manifest.tensors[name].dtype for name in code.tensors} == {"int32"}
    weights = {name: step.weights_file_bytes for step in manifest.steps for name in step.outputs}
    assert weights[code.parity[0]] == pytest.approx(2 * weights[code.shards[0]], rel=0.05)  # two planes
    peaks = {name: step.peak_bytes for step in manifest.steps for name in step.outputs}
    assert peaks[code.parity[0]] > peaks[code.shards[0]] + weights[code.shards[0]]
    found = validate(source, bundle, random_inputs(manifest, 5), None)
    assert found.passed
    assert found.saturates == instruction_set().saturates
    assert [output.max_abs for output in found.outputs] == [0.0]
    assert [each.max_rel for each in found.codes] == [0.0]


def quantise_dequantise(between: str = "") -> ModelProto:
    """Return a Conv between DequantizeLinear and QuantizeLinear, with operands of `quantised`; ``between`` follows it."""
    made = quantised()
    del made.graph.node[1]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "x.scale", "x.zero"], ["xf"], "xf"),
        helper.make_node("DequantizeLinear", ["w", "w.scale", "w.zero"], ["wf"], "wf", axis=0),
        helper.make_node("Conv", ["xf", "wf"], ["f"], "conv", pads=[1, 1, 2, 2]),
        *([helper.make_node(between, ["f"], ["g"], "between")] if between else []),
        helper.make_node("QuantizeLinear", ["g" if between else "f", "y.scale", "y.zero"], ["c"], "c"),
    ]
    last = made.graph.node.pop()
    made.graph.node.extend([*nodes, last])
    return made


def test_a_convolution_between_dequantise_and_quantise_has_an_exact_code(tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", quantise_dequantise()), tmp_path / "b"
    compile_model(source, bundle, memory_bytes=100 * MB, codes={"conv": 1})
    manifest = read_manifest(bundle)
    assert manifest.exact
    assert {manifest.tensors[name].dtype for name in manifest.codes[0].tensors} == {"int32"}
    found = validate(source, bundle, random_inputs(manifest, 5), None)
    assert found.passed
    assert [output.max_abs for output in found.outputs] == [0.0]
    assert [each.max_rel for each in found.codes] == [0.0]


def test_what_is_not_quantised_at_once_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.onnx", quantise_dequantise("Sigmoid"))
    with pytest.raises(UnsupportedModel, match="its weight is stored in another type and dequantised"):
        compile_model(source, tmp_path / "b", memory_bytes=100 * MB, codes={"conv": 1})


def test_validate_notices_one_wrong_weight(tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", quantised()), tmp_path / "b"
    compile_model(source, bundle, memory_bytes=100 * MB, codes={"conv": 1})
    manifest = read_manifest(bundle)
    step = next(step for step in manifest.steps if manifest.codes[0].parity[0] in step.outputs)
    assert step.weights
    content = bytearray((bundle / step.weights.path).read_bytes())
    content[1000] ^= 1
    rewritten(bundle / step.weights.path, bytes(content))
    assert not validate(source, bundle, random_inputs(manifest, 5), None).passed


def test_commands_say_that_it_is_exact(hypsc_here: Command, tmp_path: Path) -> None:
    source = saved(tmp_path / "m.onnx", quantised())
    compiled = hypsc_here("compile", source, "--memory", "100MB", "--code", "conv=1", "-o", tmp_path / "b")
    assert compiled.returncode == 0, compiled.stderr
    assert "any one of which may be lost; decoded exactly, bit for bit;" in " ".join(compiled.stdout.split())
    validated = hypsc_here("validate", source, tmp_path / "b")
    assert "code of conv, 4 + 1 shards: a lost shard is decoded exactly" in validated.stdout, validated.stdout


@pytest.mark.parametrize("saturates", [False, True])
def test_a_saturating_processor_is_named(saturates: bool) -> None:
    """Where onnxruntime's own 8-bit results are wrong, a failed comparison says so."""
    output = Deviation(name="y", max_abs=1, max_rel=0.1, cosine=1, top1=None, top5=None)
    found = Validation(outputs=(output,), codes=(), samples=1, tolerance=0, stock=False, saturates=saturates)
    lines = list(_lines(found, quiet=True))
    assert lines[0].startswith("FAILED")
    assert [line.startswith("8-bit products saturate on this processor") for line in lines[1:]] == [True] * saturates
