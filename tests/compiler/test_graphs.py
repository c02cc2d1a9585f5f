"""Compile every kind of graph, cut after every layer: it computes the whole model's outputs, or is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from hyps import HypsError
from hyps.compiler.validate import random_inputs
from hyps.passes.errors import UnsupportedModel
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from tests.compiler.conftest import Bundle, Compile
from tests.compiler.graphs import BOOL, RIGHT, SQUARE, chosen, growing, ranked, scalar
from tests.compiler.onnxes import model, node, value, weight


def outputs_of(made: Bundle, library: Path | None = None) -> None:
    """Check that the bundle's outputs are the whole model's, bit for bit, on two inputs."""
    executor = load_executor(made.folder, threads=1, opener=partial(open_session, custom_ops=library))
    whole = open_session(made.model, 1, custom_ops=library)
    names = [output.name for output in executor.manifest.outputs]
    for sample in random_inputs(executor.manifest, 2):
        expected, found = whole.run(names, sample), executor.run(sample)
        assert list(found) == list(dict.fromkeys(names))
        for name in names:
            array = to_numpy(expected[name])
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("split", ["layers", "auto"])
@pytest.mark.parametrize("name", RIGHT)
def test_computes_the_same(name: str, split: str, compiled: Compile) -> None:
    made = compiled(RIGHT[name](), split=split)
    assert len(made.partitions) > 1 or split == "auto"
    outputs_of(made)
    whole = onnx.load(made.model)
    assert [entry.name for entry in whole.graph.output] == [entry.name for entry in made.compiled.manifest.outputs]
    assert [entry.name for entry in whole.graph.input] == list(made.compiled.manifest.inputs)
    for path in made.partitions:
        onnx.checker.check_model(path, full_check=True)
        part = onnx.load(path, load_external_data=False)
        assert part.ir_version == whole.ir_version
        assert {("", whole.opset_import[0].version)} <= {(entry.domain, entry.version) for entry in part.opset_import}


@pytest.mark.parametrize("split", ["layers", "auto"])
def test_a_branch_that_is_never_taken_may_be_wrong(split: str, compiled: Compile) -> None:
    """onnxruntime loads the model only with open sizes; the bundle has fixed sizes."""
    made = compiled(ranked(), split=split, input_shapes={"x": (200, 200, 1)})
    (change,) = made.compiled.plan.changes
    assert (change.operator, change.what) == ("p", "replaced by the branch it always takes")
    outputs_of(made)


@pytest.mark.parametrize("split", ["layers", "auto"])
def test_a_branch_that_cannot_be_computed_ends_the_run_that_takes_it(split: str, compiled: Compile) -> None:
    """With two columns the ``else`` branch of ``i`` has wrong shapes, and the other one has not."""
    made = compiled(ranked(), split=split, input_shapes={"x": (200, 100, 2)})
    assert [(each.operator, each.what) for each in made.compiled.plan.changes if "left without" in each.what] == [
        ("i", "left without its branch 'else', which now ends with an error")
    ]
    executor = load_executor(made.folder)
    np.testing.assert_array_equal(executor.run({"x": np.full((200, 100, 2), 2000, np.float32)})["y"], np.ones((200, 200)))
    with pytest.raises(HypsError, match="i"):
        executor.run({"x": np.zeros((200, 100, 2), np.float32)})


def test_a_weight_is_stored_once_in_each_partition_that_reads_it(compiled: Compile) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MaxPool", "b", "p", kernel_shape=[1])]
    nodes += [node("MatMul", "p w", "c"), node("MatMul", "c w", "y")]
    made = compiled(
        model(nodes, [value("x", 1, 200, 200)], [value("y", 1, 200, 200)], [weight("w", 200, 200)]), split="pooling"
    )
    first, second = made.compiled.manifest.steps
    for step in (first, second):
        assert step.weights and step.weights.size_bytes == 160_000
        assert [tensor.name for tensor in step.weights.tensors] == ["w"]
        assert 160_000 <= step.weight_bytes < 2 * 160_000
    assert made.compiled.manifest.model.weight_bytes == 160_000
    outputs_of(made)


def test_the_first_partition_carries_what_the_model_says_of_itself(compiled: Compile) -> None:
    proto = RIGHT["local functions"]()
    proto.doc_string, proto.domain, proto.model_version = "made for a test", "org.example", 7
    proto.metadata_props.add(key="names", value="{0: 'cat'}")
    proto.graph.input[0].doc_string = "a square"
    made = compiled(proto, split="layers")
    first, *others = (onnx.load(path, load_external_data=False) for path in made.partitions)
    assert (first.doc_string, first.domain, first.model_version) == ("made for a test", "org.example", 7)
    assert [(entry.key, entry.value) for entry in first.metadata_props] == [("names", "{0: 'cat'}")]
    assert first.graph.input[0].doc_string == "a square"
    assert not any(part.metadata_props or part.doc_string for part in others)


@pytest.mark.parametrize("symbols", [("N", "N"), ("N", "M"), ("", "")], ids=["one symbol", "two", "none"])
def test_a_batch_that_is_given_for_one_input_is_taken_for_all(symbols: tuple[str, str], compiled: Compile) -> None:
    inputs = [value("x", symbols[0], 4), value("z", symbols[1], 4)]
    proto = model([node("Add", "x z", "y")], inputs, [value("y", "N", 4)])
    assert compiled(proto).compiled.manifest.tensors["y"].shape == (1, 4)
    made = compiled(proto, input_shapes={"x": (2, 4)}, force=True).compiled
    assert made.manifest.tensors["z"].shape == (2, 4)
    (change,) = made.plan.changes
    assert (change.operator, change.what) == ("input z", "taken as [2,4]")


@pytest.mark.parametrize("kind", ["RandomNormalLike", "Bernoulli", "Dropout"])
def test_what_draws_random_numbers_is_not_promised_to_agree(kind: str, compiled: Compile) -> None:
    constants = [scalar("ratio", 0.5), scalar("trains", True, np.bool_)] if kind == "Dropout" else []
    draw = node(kind, "a ratio trains" if constants else "a", "b")
    made = compiled(model([node("Sigmoid", "x", "a"), draw, node("Tanh", "b", "y")], *SQUARE, constants))
    reason = made.compiled.plan.inexact_reason
    assert reason == f"{kind} 'b' draws random numbers; two runs of the whole model differ, too"
    (sample,) = random_inputs(made.compiled.manifest, 1)
    assert load_executor(made.folder).run(sample)["y"].shape == (200, 200)


REFUSED: dict[str, tuple[ModelProto, str]] = {
    "sequence": (
        model([node("SplitToSequence", "x", "s"), node("SequenceAt", "s k", "y")], *SQUARE, [scalar("k", 0, np.int64)]),
        "value 's' is no tensor but a sequence_type",
    ),
    "state that grows with an input": (
        model(
            [node("Loop", "times yes x", "y", body=growing())], [value("x", 2), value("times", kind=TensorProto.INT64)],
            [value("y", "n")], [scalar("yes", True, np.bool_)],
        ),
        "tensor 'y' (output of Loop 'y') has no fixed shape",
    ),
    "unknown operator": (
        model([node("Odd", "x", "y")], *SQUARE),
        "neither onnx nor onnxruntime knows an operator 'Odd' in opset 17; name the library that has it with --custom-ops",
    ),
    "unknown operator in a branch": (
        model(
            [chosen("c", [node("Odd", "x", "t", domain="own")], [node("Relu", "x", "e")], "y")],
            [*SQUARE[0], value("c", kind=BOOL)],
            SQUARE[1],
            domains=["own"],
        ),
        "neither onnx nor onnxruntime knows an operator 'Odd' of domain 'own'",
    ),
    "unknown operator in a function": (
        model(
            [node("F", "x", "y", domain="own")],
            *SQUARE,
            functions=[
                helper.make_function(
                    "own", "F", ["a"], ["b"], [node("Odd", "a", "b", domain="corp")],
                    [helper.make_opsetid("", 17), helper.make_opsetid("corp", 1)],
                )
            ],
            domains=["own", "corp"],
        ),
        "neither onnx nor onnxruntime knows an operator 'Odd' of domain 'corp'",
    ),
    "input of a type without numpy": (
        model([node("Cast", "x", "y", to=1)], [value("x", 4, kind=TensorProto.BFLOAT16)], [value("y", 4)]),
        "input 'x' is of type bfloat16, which numpy and its files do not know; export the model with a Cast",
    ),
    "wrong shapes": (
        model([node("QuickGelu", "x", "g", domain="com.microsoft"), node("Conv", "g w", "y")], *SQUARE, [weight("w", 4, 4)]),
        "Conv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, compiled: Compile, tmp_path: Path) -> None:
    proto, problem = REFUSED[name]
    with pytest.raises(UnsupportedModel) as caught:
        compiled(proto, split="layers")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
