"""A plan's promise is checked against onnxruntime: what it computes of the whole model, and of the partitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from hyps.compiler import exactness
from hyps.compiler.jobs import PlanningJob
from hyps.compiler.model_io.load import load_model
from hyps.compiler.model_io.ort_expressions import Expressions, optimised
from hyps.compiler.planning import plan_folded
from hyps.compiler.preparation import folded_model
from hyps.compiler.validate import random_inputs, validate
from hyps.models.catalogue import build
from hyps.passes.errors import UnsupportedModel
from hyps.passes.planning import planner
from hyps.passes.planning.request import CutMode, Request
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.onnxes import model, node, saved, value, weight
from tests.compiler.test_random_graphs import NOTHING


def number(name: str, at: float, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(at, dtype), name)


def is_kept(made: Bundle) -> bool:
    """Return whether the bundle keeps its promise on random inputs."""
    return validate(made.model, made.folder, random_inputs(made.compiled.manifest, 4), None).passed


def fast_gelu() -> ModelProto:
    """Return the approximation of Gelu that onnxruntime computes as one, except where its result is an output."""
    nodes = [node("Mul", "x a", "m"), node("Mul", "m x", "n"), node("Add", "n one", "o"), node("Mul", "x c", "p")]
    nodes += [node("Mul", "p o", "q"), node("Tanh", "q", "t"), node("Add", "t one", "u"), node("Mul", "x half", "h")]
    nodes += [node("Mul", "h u", "g"), node("MatMul", "g w", "y")]
    constants = [number("a", 0.044715), number("one", 1), number("c", 0.7978845834732056), number("half", 0.5)]
    return model(nodes, [value("x", 4, 64)], [value("y", 4, 64)], [*constants, weight("w", 64, 64)])


def moved_transposes() -> ModelProto:
    """Return Transposes that cancel each other in the whole model; alone, one is computed with the MatMul after it."""
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 1]), node("Softmax", "a", "b", axis=1)]
    nodes += [node("Transpose", "b", "c", perm=[0, 2, 1]), node("MatMul", "c w", "y")]
    return model(nodes, [value("x", 2, 64, 64)], [value("y", 2, 64, 64)], [weight("w", 64, 64)])


UNLISTED = {"approximated Gelu": fast_gelu, "moved Transposes": moved_transposes}


@pytest.mark.parametrize("made", UNLISTED.values(), ids=UNLISTED)
def test_a_fusion_that_no_list_has_is_found(made: Callable[[], ModelProto], compiled: Compile) -> None:
    bundle = compiled(made(), split="layers")
    reason = bundle.compiled.plan.inexact_reason or ""
    assert reason.endswith("in another way in the whole model than in a part of it")
    assert not bundle.compiled.manifest.exact and is_kept(bundle)
    assert compiled(made(), force=True).compiled.plan.exact


def attention(batch: int | str) -> ModelProto:
    """Return a projection before and after attention: onnxruntime makes a Gemm of one whose batch is fixed."""
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "q"), node("Reshape", "q four", "r")]
    nodes += [node("Transpose", "r", "s", perm=[0, 2, 1, 3]), node("Transpose", "r", "t", perm=[0, 2, 3, 1])]
    nodes += [node("MatMul", "s t", "u"), node("Softmax", "u", "v", axis=-1), node("MatMul", "v s", "o")]
    nodes += [node("Transpose", "o", "p", perm=[0, 2, 1, 3]), node("Reshape", "p three", "n"), node("MatMul", "n w", "k")]
    nodes.append(node("Add", "k b", "y"))
    shapes = [
        numpy_helper.from_array(np.array(shape, np.int64), name)
        for name, shape in (("four", [0, 10, 4, 160]), ("three", [0, 10, 640]))
    ]
    ends = [value("x", batch, 10, 640)], [value("y", batch, 10, 640)]
    return model(nodes, *ends, [weight("w", 640, 640), weight("b", 640), *shapes])


@pytest.mark.parametrize("split", ["auto", "layers"])
def test_a_batch_that_the_file_leaves_open_changes_fusions(split: CutMode, compiled: Compile) -> None:
    made = compiled(attention("N"), split=split)
    reason = made.compiled.plan.inexact_reason or ""
    assert reason.endswith("where the shapes of the inputs are open, as in the model's file, than where they are fixed")
    promised = made.compiled.manifest
    (worst,) = validate(made.model, made.folder, random_inputs(promised, 4), 1e-4).outputs
    assert 0 < worst.max_rel < 1e-5
    assert is_kept(made)
    fixed = compiled(attention(1), split=split, force=True)
    assert fixed.compiled.plan.exact and is_kept(fixed)


def test_an_open_batch_that_changes_no_fusion_stays_exact(compiled: Compile) -> None:
    proto = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")],
        [value("x", "N", 3, 8, 8)],
        [value("y", "N", 8, 6, 6)],
        [weight("w", 8, 3, 3, 3)],
    )
    made = compiled(proto, split="layers")
    assert made.compiled.plan.exact and is_kept(made)


def coded(reads: str, writes: str, scale: str) -> list[NodeProto]:
    return [
        node("QuantizeLinear", f"{reads} {scale} z", f"{writes}q"),
        node("DequantizeLinear", f"{writes}q {scale} z", writes),
    ]


def test_a_quantised_plan_that_is_not_exact_promises_no_bound(compiled: Compile, hypsc: Command) -> None:
    nodes = [*coded("x", "a", "s"), node("Round", "a", "b"), node("Tanh", "b", "c"), *coded("c", "y", "s")]
    proto = model(nodes, [value("x", 4, 8)], [value("y", 4, 8)], [number("s", 0.02), number("z", 128, np.uint8)])
    made = compiled(proto, split="layers")
    assert made.compiled.manifest.is_bounded is False
    told = hypsc("validate", made.model, made.folder, "--random", 2)
    assert told.returncode == 0 and "no bound is promised" in told.stdout
    whole = compiled(proto, force=True)
    assert whole.compiled.plan.exact and b"is_bounded" not in (whole.folder / "manifest.json").read_bytes()


def repairable() -> ModelProto:
    """Return a model that onnxruntime refuses: an operator that no output needs reads a tensor of the wrong rank."""
    nodes = [node("Relu", "x", "y"), node("Conv", "x w", "dead")]
    return model(nodes, [value("x", 2, 3)], [value("y", 2, 3)], [weight("w", 4, 4, 1, 1)])


def test_a_repair_is_said(tmp_path: Path, hypsc_here: Command) -> None:
    saved(tmp_path / "m.onnx", repairable())
    told = hypsc_here("compile", "m.onnx", "--memory", "100MB", "-o", "b")
    (line,) = (line for line in " ".join(told.stdout.split()).split("the model is ")[1:])
    assert line.startswith("repaired: onnxruntime itself refuses the file (")
    assert "the bundle computes what the repaired model does: 1 operators removed" in line


def test_what_onnxruntime_loads_is_not_called_repaired(compiled: Compile) -> None:
    assert not compiled(fast_gelu()).compiled.plan.changes


def test_a_reader_that_no_output_needs_prevents_a_fusion_in_the_file(compiled: Compile) -> None:
    """onnxruntime does not remove it before it fuses; the bundle is without it."""
    nodes = [node("MatMul", "x w", "m"), node("Add", "m r", "y"), node("Tanh", "m", "dead")]
    proto = model(nodes, [value("x", 4, 600), value("r", 4, 96)], [value("y", 4, 96)], [weight("w", 600, 96)])
    made = compiled(proto)
    reason = made.compiled.plan.inexact_reason
    assert reason == "onnxruntime computes 'y' in another way in the model's file than in its normal form"
    assert is_kept(made)


def test_more_operators_than_are_checked_promise_less(compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Relu", "x", "a"), node("MaxPool", "a", "b", kernel_shape=[1, 1]), node("Sigmoid", "b", "y")]
    proto = model(nodes, [value("x", 1, 3, 4, 4)], [value("y", 1, 3, 4, 4)])
    assert compiled(proto, split="layers").compiled.plan.exact
    monkeypatch.setattr(exactness, "MOST_CHECKED", 2)
    assert "up to 2 operators" in (compiled(proto, split="layers", force=True).compiled.plan.inexact_reason or "")
    assert compiled(proto, force=True).compiled.plan.exact


def test_large_computed_constants_are_not_computed(compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in 16 bits behind a Cast: onnxruntime would hold them in memory, twice."""
    halves = numpy_helper.from_array(np.random.default_rng(0).standard_normal((200, 300)).astype(np.float16), "h")
    nodes = [node("Cast", "h", "w", to=1), node("MatMul", "x w", "m"), node("Relu", "m", "y")]
    proto = model(nodes, [value("x", 4, 200)], [value("y", 4, 300)], [halves])
    seen: list[ModelProto] = []

    def watched(proto: ModelProto, custom_ops: Path | None, *, stock: bool = False) -> ModelProto:
        seen.append(proto)
        return optimised(proto, custom_ops, stock=stock)

    monkeypatch.setattr(exactness, "optimised", watched)
    for limit in (10**9, 1):
        monkeypatch.setattr(exactness, "_COMPUTED_BYTES", limit)
        seen.clear()
        compiled(proto, split="layers", force=True)
        kinds = {each.op_type for one in seen for each in one.graph.node}
        assert ("Cast" in kinds) == (limit > 1) and "MatMul" in kinds


NETWORKS = ("squeezenet", "mobilenetv2", "mobilenetv2_int8", "googlenet", "lstm_tagger", "vit_tiny", "cifar10_vgg")


def at_hand() -> Iterator[str]:
    """Yield the names of the catalogue's small networks and of the real models."""
    yield from NETWORKS
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
    yield from (path.stem for path in sorted(folder.glob("*.onnx")))


#: Networks whose many cuts take long.
LONG = {
    "gtcrn_simple",
    "nanodet_m_320",
    "vit_tiny",
    "derived_mobilenet_v2_qdq",
    "googlenet",
    "mobilenetv2",
    "mobilenetv2_int8",
}
#: Models cut at operators whose cuts were not measured, or in 16-bit floats: nothing is promised bit for bit.
LESS_PROMISED = {"vit_tiny", "gtcrn_simple", "ultraface_rfb320", "winml_squeezenet_fp16", "winml_style_candy"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.regression] if name in LONG else []) for name in at_hand()]
)
def test_every_tensor_across_a_cut_is_one_of_the_whole_model_or_less_is_promised(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The oracle is onnxruntime's own optimised graphs; `hyps.passes.sharding.exactness` is what is tested."""
    if name in NETWORKS:
        path = tmp_path / f"{name}.onnx"
        build(name, path)
    else:
        path = request.getfixturevalue("shared_data") / "models" / f"{name}.onnx"
    with load_model(path) as loaded:
        try:
            folded = folded_model(loaded, {})
        except UnsupportedModel as error:
            pytest.skip(str(error))
        asked = Request(split="layers", budget_bytes=10**12, device=NOTHING)
        planned = planner.plan(folded.model, asked)
        assert bool(planned.plan.inexact_reason) == (name in LESS_PROMISED), planned.plan.inexact_reason
        if planned.plan.inexact_reason:
            return
        table = Expressions()
        inputs = table.symbols(planned.graph.inputs)
        whole = table.of(optimised(folded.model.proto, None).graph, inputs)
        separate = optimised(exactness.partitioned(planned.model.proto, planned.plan.partitions), None).graph
        parts = table.of(exactness.joined(separate), inputs)
        known = set(whole.values())
        for partition in planned.plan.partitions:
            assert [output for output in partition.outputs if parts[output] not in known] == [], partition.name
        job = PlanningJob(
            model=path, request=Request(split="layers", budget_bytes=10**12, device=NOTHING), target_name="test"
        )
        assert plan_folded(loaded, folded, job).plan.inexact_reason == loaded.inexact_reason


@pytest.mark.parametrize("name", ["squeezenet", "mobilenetv2_int8", "lstm_tagger", "cifar10_vgg"])
def test_a_network_cut_after_every_layer_keeps_its_promise(name: str, tmp_path: Path, compiled: Compile) -> None:
    build(name, tmp_path / f"{name}.onnx")
    made = compiled(tmp_path / f"{name}.onnx", split="layers")
    assert made.compiled.plan.exact
    assert is_kept(made)
    assert load_executor(made.folder).manifest.exact == made.compiled.plan.exact


def test_the_guide_says_of_every_graph_transformer_what_is_done_about_it(root: Path) -> None:
    """The library itself names them: the names of its C++ classes (Itanium ABI) are in it."""
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("onnxruntime_pybind11_state*.so")).read_bytes()
    classes = re.finditer(rb"N11onnxruntime(\d+)([A-Z][A-Za-z0-9]+)E\x00", library)
    names = {found[2].decode() for found in classes if int(found[1]) == len(found[2])}
    endings = "Fusion|Elimination|Remover|Transformer|TransposeOptimizer|Folding|Sharing|Quantization|NodeUnit"
    kinds = rf"({endings})$|^(Eliminate|Fuse)"
    transformers = {name for name in names if re.search(kinds, name)}
    bases = {"GraphTransformer", "RuleBasedGraphTransformer", "SelectorActionTransformer"}
    page = (root / "docs" / "guide" / "exactness.md").read_text()
    assert len(transformers) > 60
    assert sorted(transformers - bases - set(re.findall(r"\w+", page))) == []
