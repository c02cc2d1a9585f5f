"""The driver of rewrites checks each result, and names the rewrite that broke something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from onnx import ModelProto, TensorProto, helper

from hyps.passes.errors import PassError, PassFailed, UnsupportedModel
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten, run_rewrites
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds

CHANGE = Change(operator="a", what="changed", why="for the test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Break(Rewrite):
    """A rewrite that applies ``how`` to a copy of the model; it reports a change if ``reports``."""

    how: Callable[[ModelProto], object]
    reports: bool = True

    def __call__(self, model: Model) -> Rewritten:
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        self.how(proto)
        return Rewritten(model=Model(proto=proto, weights=model.weights), changes=(CHANGE,) if self.reports else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Rewrite):
    def __call__(self, model: Model) -> Rewritten:
        raise UnsupportedModel("this cannot be done; do that")


def two_layers() -> Model:
    net = Net()
    net.input("x", 1, 4)
    net.node("Relu", "x", to="a")
    net.node("Add", "a", net.weight("w", 4), to="y")
    net.output("y")
    return net.model()


def drop_first_node(proto: ModelProto) -> None:
    del proto.graph.node[0]


def drop_weight(proto: ModelProto) -> None:
    del proto.graph.initializer[0]


def unknown_operator(proto: ModelProto) -> None:
    proto.graph.node[0].op_type = "NoSuchOperator"


def wrong_attribute(proto: ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))


def swap_nodes(proto: ModelProto) -> None:
    nodes = [proto.graph.node[1], proto.graph.node[0]]
    copies = [helper.make_node(node.op_type, node.input, node.output, node.name) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def wrong_shape(proto: ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0] * 3))


def two_writers(proto: ModelProto) -> None:
    proto.graph.node.add().CopyFrom(helper.make_node("Neg", ["x"], ["y"], "again"))


INVALID = [drop_first_node, drop_weight, unknown_operator, wrong_attribute, swap_nodes, wrong_shape, two_writers]


@pytest.mark.parametrize("how", INVALID, ids=lambda how: how.__name__.replace("_", " "))
def test_an_invalid_result_names_the_rewrite(how: Callable[[ModelProto], object]) -> None:
    with pytest.raises(PassFailed, match=r"^rewrite Break left an invalid model: ") as caught:
        run_rewrites(two_layers(), [Break(how=how)])
    assert caught.value.__cause__ is not None


def rename_input(proto: ModelProto) -> None:
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "z"


def rename_output(proto: ModelProto) -> None:
    proto.graph.output[0].name = proto.graph.node[1].output[0] = "z"


def another_input(proto: ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def another_output(proto: ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 4]))


def wider_result(proto: ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [2, 4], [1.0] * 8))


def another_type(proto: ModelProto) -> None:
    proto.graph.node[1].CopyFrom(helper.make_node("Cast", ["a"], ["y"], "y", to=TensorProto.DOUBLE))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


INTERFACE = [rename_input, rename_output, another_input, another_output, wider_result, another_type]


@pytest.mark.parametrize("how", INTERFACE, ids=lambda how: how.__name__.replace("_", " "))
def test_inputs_and_outputs_must_stay(how: Callable[[ModelProto], object]) -> None:
    with pytest.raises(PassFailed) as caught:
        run_rewrites(two_layers(), [Break(how=how)])
    assert str(caught.value) == "rewrite Break changed the model's inputs or outputs"


def test_documentation_and_metadata_are_no_part_of_the_interface() -> None:
    def describe(proto: ModelProto) -> None:
        proto.graph.output[0].doc_string = "scores"
        proto.graph.output[0].metadata_props.add(key="name", value="linear_8")
        proto.graph.input[0].type.denotation = "IMAGE"

    result = run_rewrites(two_layers(), [Break(how=describe)])
    assert result.model.proto.graph.output[0].metadata_props[0].value == "linear_8"


def negate(proto: ModelProto) -> None:
    proto.graph.node[0].op_type = "Neg"


def test_a_good_rewrite_has_all_shapes_and_its_changes() -> None:
    def longer(proto: ModelProto) -> None:
        proto.graph.node[1].input[0] = "b"
        nodes = [proto.graph.node[0], helper.make_node("Neg", ["a"], ["b"], "b"), proto.graph.node[1]]
        copies = [helper.make_node(node.op_type, node.input, node.output, node.name) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)

    result = run_rewrites(two_layers(), [Break(how=longer)])
    assert result.modified
    assert result.changes == (CHANGE,)
    assert [value.name for value in result.model.proto.graph.value_info] == ["a", "b"]
    assert set(random_feeds(result.model)) == {"x"}


def test_rewrites_run_in_order_on_each_others_results() -> None:
    seen = []

    def look(proto: ModelProto) -> None:
        seen.append(proto.graph.node[0].op_type)

    result = run_rewrites(two_layers(), [Break(how=look), Break(how=negate), Break(how=look)])
    assert seen == ["Relu", "Neg"]
    assert result.changes == (CHANGE,) * 3


def test_a_rewrite_without_changes_is_ignored() -> None:
    """A result is `modified` exactly when it has changes: without them the driver keeps the model."""
    model = two_layers()
    result = run_rewrites(model, [Break(how=negate, reports=False)])
    assert not result.modified
    assert result.model is model


def test_no_rewrites() -> None:
    model = two_layers()
    assert run_rewrites(model, []) == Rewritten(model=model)


def test_a_refusal_passes_through() -> None:
    with pytest.raises(UnsupportedModel, match="this cannot be done; do that"):
        run_rewrites(two_layers(), [Refuse()])


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakValid(Break):
    """The same, of a rewrite that needs no shapes and may change those of inputs."""

    form: ClassVar[ModelForm] = ModelForm.VALID
    keeps_shapes: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakParsed(BreakValid):
    """The same, of a rewrite that runs before the model is checked."""

    form: ClassVar[ModelForm] = ModelForm.PARSED


def larger_batch(proto: ModelProto) -> None:
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    del proto.graph.value_info[:]


def test_a_rewrite_that_needs_no_shapes_gets_none_inferred() -> None:
    result = run_rewrites(two_layers(), [BreakValid(how=larger_batch)])
    assert result.changes == (CHANGE,)
    assert not result.model.proto.graph.value_info
    with pytest.raises(PassFailed, match=r"^rewrite Break changed the model's inputs or outputs"):
        run_rewrites(two_layers(), [Break(how=larger_batch)])


@pytest.mark.parametrize("rewrite", [BreakValid, BreakParsed])
@pytest.mark.parametrize("how", [rename_input, rename_output, another_input, another_type], ids=lambda how: how.__name__)
def test_names_and_types_always_stay(rewrite: type[Break], how: Callable[[ModelProto], object]) -> None:
    with pytest.raises(PassFailed, match=f"^rewrite {rewrite.__name__} "):
        run_rewrites(two_layers(), [rewrite(how=how)])


def test_only_models_that_were_checked_are_checked_again() -> None:
    with pytest.raises(PassFailed, match=r"^rewrite BreakValid left an invalid model: "):
        run_rewrites(two_layers(), [BreakValid(how=drop_first_node)])
    assert run_rewrites(two_layers(), [BreakParsed(how=drop_first_node)]).modified, "its loader says what is wrong"


def test_initializers_among_the_inputs_may_go() -> None:
    model = two_layers()
    model.proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    assert run_rewrites(model, [BreakParsed(how=lambda proto: proto.graph.input.pop())]).modified


def test_a_bug_is_no_users_mistake() -> None:
    assert not issubclass(PassFailed, PassError)
