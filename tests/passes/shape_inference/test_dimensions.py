"""Open dimensions: one refusal with an example that works, one size for each symbol."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import pytest
from onnx import ModelProto, TensorProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.normalize.input_shapes import AssumeBatch, FixInputShapes, given_batch
from hyps.passes.rewrite import run_rewrites
from hyps.passes.shape_inference.dimensions import size_of
from hyps.passes.shape_inference.example_shapes import refuse_open_inputs
from hyps.passes.shapes import infer_shapes
from hyps.passes.weights import Model

Inputs = dict[str, tuple[int, Sequence[int | str | None]]]
INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def model_with(inputs: Inputs) -> Model:
    """Return a model that reads each input on its own: any sizes are right for it."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}/read"], name) for name in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}/read", kind, shape) for name, (kind, shape) in inputs.items()]
    proto: ModelProto = helper.make_model(
        helper.make_graph(nodes, "g", values, outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    return Model(proto=proto, weights={})


def refusal(model: Model) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        refuse_open_inputs(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def example(message: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes in the options of a message, as a shell and ``hypsc`` would read them."""
    words = shlex.split(message[message.index("--input-shape") :])
    assert set(words[::2]) == {"--input-shape"}
    parts = (word.rpartition(":") for word in words[1::2])
    return {name: tuple(map(int, shape.split(","))) for name, _, shape in parts}


def fixed(model: Model, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[int]]:
    found = run_rewrites(model, [FixInputShapes(shapes=shapes), AssumeBatch(size=given_batch(model, shapes))]).model
    infer_shapes(found)
    return {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in found.proto.graph.input
    }


BERT: Inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (INT, ("batch", "sequence")))
DECODER: Inputs = {
    "input_ids": (INT, ("batch_size", "sequence_length")),
    "attention_mask": (INT, ("batch_size", "past_sequence_length + sequence_length")),
    "past.0.key": (FLOAT, ("batch_size", 4, "past_sequence_length", 16)),
}
EXAMPLES: dict[str, tuple[Inputs, dict[str, tuple[int, ...]]]] = {
    "one symbol, one option": (BERT, {"input_ids": (1, 128)}),
    "a picture": ({"image": (FLOAT, ("N", 3, "height", "width"))}, {"image": (1, 3, 224, 224)}),
    "a picture, channels last": ({"image": (FLOAT, (None, None, None, 3))}, {"image": (1, 224, 224, 3)}),
    "nameless": ({"x": (INT, (None, None)), "y": (INT, (None, None))}, {"x": (1, 128), "y": (1, 128)}),
    "unknowns are no symbol": ({"x": (INT, ("?", 2, "?"))}, {"x": (1, 2, 128)}),
    "sound": ({"audio": (FLOAT, ("batch", "samples"))}, {"audio": (1, 16000)}),
    "mel": ({"features": (FLOAT, ("batch", 80, "frames"))}, {"features": (1, 80, 128)}),
    "a film": ({"clip": (FLOAT, ("n", 3, "t", "h", "w"))}, {"clip": (1, 3, 16, 224, 224)}),
    "a name for the shell": ({"my input:0": (INT, ("b", "s"))}, {"my input:0": (1, 128)}),
    "another model's batch": ({"image": (FLOAT, ("N", 3, 8, 8)), "ids": (INT, ("N", "tokens"))}, {"ids": (1, 128)}),
    "formulas": (DECODER, {"input_ids": (1, 128), "attention_mask": (1, 144), "past.0.key": (1, 4, 16, 16)}),
    "nineteen": (
        {f"edges{i}": (INT, (2, f"edges_{i % 3}")) for i in range(19)},
        {f"edges{i}": (2, 128) for i in range(3)},
    ),
}


@pytest.mark.parametrize(("inputs", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_one_refusal_names_all_open_inputs_and_its_example_works(
    inputs: Inputs, expected: dict[str, tuple[int, ...]]
) -> None:
    model = model_with(inputs)
    message = refusal(run_rewrites(model, [AssumeBatch()]).model)
    unfixed = [name for name, (_, shape) in inputs.items() if not all(isinstance(size, int) for size in shape[1:])]
    assert re.findall(r"input '([^']+)'", message) == unfixed
    assert example(message) == expected
    assert all(min(shape) > 0 for shape in fixed(model, example(message)).values())


def test_the_example_is_one_that_works() -> None:
    """The usual lengths are tried until the model can have one."""
    with pytest.raises(UnsupportedModel, match=r"--input-shape input_ids:1,77$"):
        refuse_open_inputs(model_with(BERT), lambda shapes: shapes["input_ids"][1] == 77)
    with pytest.raises(UnsupportedModel, match=r"--input-shape input_ids:1,128$"):
        refuse_open_inputs(model_with(BERT), lambda shapes: False)


def test_a_symbol_has_one_size_in_all_inputs() -> None:
    found = fixed(model_with(DECODER), {"past.0.key": (2, 4, 5, 16), "input_ids": (2, 3)})
    assert found == {"input_ids": [2, 3], "attention_mask": [2, 8], "past.0.key": [2, 4, 5, 16]}


@pytest.mark.parametrize(
    ("inputs", "shapes", "said"),
    [
        (BERT, {"input_ids": (1, 32), "token_type_ids": (1, 16)}, ["'sequence'", "32 in 'input_ids'", "16 in 'token_type"]),
        ({"x": (FLOAT, ("n", "n"))}, {"x": (2, 3)}, ["'n'", "2 in 'x'", "3 in 'x'"]),
        (
            DECODER,
            {"past.0.key": (1, 4, 5, 16), "input_ids": (1, 3), "attention_mask": (1, 7)},
            ["'past_sequence_length + sequence_length'", "7 in 'attention_mask'", "8 by the sizes of its parts"],
        ),
    ],
    ids=["two inputs", "one input", "a formula"],
)
def test_two_sizes_of_a_symbol_are_refused(inputs: Inputs, shapes: dict[str, tuple[int, ...]], said: list[str]) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        fixed(model_with(inputs), shapes)
    assert all(each in str(caught.value) for each in said), caught.value


def test_what_has_no_name_may_have_several_sizes() -> None:
    assert fixed(model_with({"x": (FLOAT, ("?", "None", None))}), {"x": (2, 3, 4)}) == {"x": [2, 3, 4]}


@pytest.mark.parametrize(
    ("formula", "size"),
    [("a", 6), ("a + b", 10), ("2*a - (b//2)", 10), ("a + c", None), ("c", None), ("a // 0", None), ("b - a", None)],
)
def test_sizes_of_formulas(formula: str, size: int | None) -> None:
    assert size_of(formula, {"a": 6, "b": 4}) == size


@pytest.mark.parametrize("formula", ["a ** 9999999", "f(a)", "(" * 150, "a +", "__import__('os')", "a" * 500])
def test_what_is_no_formula_is_a_symbol(formula: str) -> None:
    assert size_of(formula, {"a": 6}) is None
