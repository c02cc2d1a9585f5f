"""A model that is damaged, on purpose or not, ends in one line; what only looks odd compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto, helper

from hyps.compiler.errors import CompilerError, ModelFileError
from hyps.compiler.model_io.load import load_model
from hyps.compiler.model_io.second_opinion import opening_error
from hyps.passes.errors import PassError
from tests.compiler.conftest import Compile
from tests.compiler.graphs import chosen
from tests.compiler.onnxes import classifier, linear, model, node, saved, value, weight

Damage = Callable[[ModelProto], object]


def convolution(group: int = 1, channels: int = 8, **attributes: Any) -> ModelProto:
    """Return a Conv and a Relu whose output has no shape."""
    nodes = [node("Conv", "x w", "c", group=group, **attributes), node("Relu", "c", "y")]
    return model(nodes, [value("x", 1, channels, 32, 32)], [ValueInfoProto(name="y")], [weight("w", 16, 8, 3, 3)])


def attribute(name: str, **fields: object) -> Damage:
    """Return a change of the first Conv's attribute of this name."""

    def change(proto: ModelProto) -> None:
        for found in proto.graph.node[0].attribute:
            if found.name == name:
                for field, content in fields.items():
                    setattr(found, field, content)

    return change


def typed(kind: int) -> Damage:
    return lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", kind)


def no_text(proto: ModelProto) -> None:
    proto.graph.node[0].attribute.append(AttributeProto(name="auto_pad", type=AttributeProto.STRING, s=b"SAME\xff"))


def unknown_state(proto: ModelProto) -> None:
    proto.graph.value_info.append(helper.make_tensor_value_info("c", 4242, [1]))


def nothing_computed(proto: ModelProto) -> None:
    proto.graph.output[0].CopyFrom(proto.graph.input[0])


def in_a_branch(proto: ModelProto) -> None:
    """Put an attribute that is given by reference into a branch."""
    inner = node("LeakyRelu", "x", "t", alpha=0.5)
    inner.attribute[0].ref_attr_name = "slope"
    inner.attribute[0].ClearField("f")
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.input.append(value("q", kind=TensorProto.BOOL))
    proto.graph.node.append(chosen("q", [inner], [node("Relu", "x", "e")], "y"))


def many_axes(proto: ModelProto) -> None:
    inputs = [value("x", 1, 3), value("shape", 2**62, kind=TensorProto.INT64)]
    proto.CopyFrom(model([node("Expand", "x shape", "y")], inputs, [value("y", 3, 3)]))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "reference": (attribute("kernel_shape", ref_attr_name="other"), "'kernel_shape' of Conv 'conv1' refers to an attribute"),
    "reference in a branch": (in_a_branch, "'alpha' of LeakyRelu 't' refers to an attribute of a function, and is in none"),
    "type 95": (typed(95), "'image' has an element type that ONNX does not have"),
    "type 2^31 - 1": (typed(2**31 - 1), "'image' has an element type"),
    "type of an inner tensor": (unknown_state, "'c' has an element type"),
    "no text": (no_text, "attribute 'auto_pad' of Conv 'conv1' is no text"),
    "nothing computed": (nothing_computed, "computes nothing: no operator makes an output"),
    "negative weight": (lambda proto: proto.graph.initializer[1].dims.insert(0, -1), "has the shape [-1, 32]"),
    "negative input": (
        lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", -16),
        "input 'image' has a dynamic shape",
    ),
    "no groups": (lambda proto: proto.CopyFrom(convolution(group=0)), "its weight [16, 8, 3, 3] in 0 groups does not fit"),
    "groups that do not divide": (lambda proto: proto.CopyFrom(convolution(group=3)), "in 3 groups does not fit 8 input"),
    "no channels": (lambda proto: proto.CopyFrom(convolution(channels=0)), "does not fit 0 input channels"),
    "no kernel": (lambda proto: proto.CopyFrom(convolution(kernel_shape=[3, 3], strides=[0, 1])), "Conv"),
    "a shape of 2^62 axes": (many_axes, "reads 'shape', a shape of 4611686018427387904 axes; 64 are supported"),
    "half the pads": (lambda proto: proto.CopyFrom(convolution(pads=[1, 1])), "Attribute pads has incorrect size"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage(damage: Damage, words: str, compiled: Compile) -> None:
    proto = classifier()
    damage(proto)
    with pytest.raises((CompilerError, PassError)) as caught:
        compiled(proto)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [2**20, 2**32, 2**40])
def test_rows_without_end(rows: int, compiled: Compile) -> None:
    """The search for the fewest spatial shards does not try every number of rows."""
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("GlobalAveragePool", "c", "y")]
    proto = model(nodes, [value("x", 1, 8, rows, 8)], [value("y", 1, 16, 1, 1)], [weight("w", 16, 8, 3, 3)])
    with pytest.raises(PassError, match="the smallest budget that works is"):
        compiled(proto, budget_bytes=200_000_000)


def test_a_reference_that_does_not_count(compiled: Compile) -> None:
    """A small weight says where its data are, without an offset, and that they are inside the model."""
    proto = linear(weight("w", 200, 10))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10
    proto.graph.initializer[0].external_data.add(key="location", value="nowhere")
    compiled(proto)


class TestSecondOpinion:
    """An error that nobody foresaw is the model's where onnxruntime does not open it either, else a bug."""

    @pytest.mark.parametrize("is_good", [True, False])
    def test_unforeseen_error(self, is_good: bool, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", linear(None if is_good else weight("w", 100, 100)))
        expected = ZeroDivisionError if is_good else ModelFileError
        with pytest.raises(expected) as caught, load_model(path):
            raise ZeroDivisionError
        if not is_good:
            assert str(caught.value).startswith(f"onnxruntime cannot open {path}: ")

    def test_operators_of_a_users_library_say_nothing(self, tmp_path: Path) -> None:
        odd = model([node("Odd", "x", "y", domain="own")], [value("x", 1)], [value("y", 1)], domains=["own"])
        assert opening_error(saved(tmp_path / "m.onnx", odd)) is None

    def test_reason_is_short(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", model([node("Conv", "x", "y")], [value("x", 1)], [value("y", 1)]))
        reason = opening_error(path)
        assert reason
        assert len(reason) <= 300
        assert "ONNXRuntimeError" not in reason
