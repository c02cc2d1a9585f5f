"""Find the constants that stay unfolded, and count those that onnxruntime folds."""

from __future__ import annotations

import pytest

from hyps.passes.cost.folding import constant_operators, unfolded_operators, unfolded_weights
from hyps.passes.cost.footprint import footprints
from hyps.passes.cost.fusion import fusion_groups
from tests.passes.nets import drawn

LARGE = 1 << 20
#: What reads the computed weight ``w``, and whether the weight may be computed at run time.
READERS = {
    "product": ("m MatMul x w -> y", True),
    "product and activation": ("m MatMul x w -> m\nr Relu m -> y", True),
    "convolution": ("m Conv x w B -> m\nr Relu m -> y", True),
    "table": ("m Gather w x -> y", True),
    "a convolution whose weights a fusion rewrites": ("m Conv x w -> m\nn BatchNormalization m S T U V -> y", False),
    "a product whose weights a fusion rewrites": ("m MatMul x w -> m\nn BatchNormalization m S T U V -> y", False),
    "a table that may be an embedding": ("m Gather w x -> m\na Add m P -> y", False),
    "the other operand": ("m MatMul w x -> y", False),
    "an operator that is not known to keep every bit": ("m Einsum x w -> y", False),
    "the products of an attention": ("m MatMul x w -> a\nk MatMul x K -> b\nv MatMul x V -> c\ns Sum a b c -> y", False),
    "the model's output": ("m MatMul x w -> m\ni Identity w -> y", False),
    "a weight that is also read as a constant": ("m MatMul x w -> m\na Add m S -> y", False),
}


@pytest.mark.parametrize(("readers", "unfolded"), READERS.values(), ids=READERS)
def test_weights_stay_small_where_no_bit_depends_on_it(readers: str, unfolded: bool) -> None:
    text = f"c Cast Q -> c\nw Mul c S -> w\n{readers}"
    graph = drawn(text, inputs="x", outputs="y", sizes={"c": LARGE, "w": LARGE, "Q": LARGE // 4})
    assert constant_operators(graph) >= {"c", "w"}
    assert unfolded_operators(graph) == ({"c", "w"} if unfolded else set())
    assert unfolded_weights(graph) == ({"Q", "S"} if unfolded else set())


def test_a_shape_stays_constant() -> None:
    text = "c Cast Q -> c\nr Reshape c N -> w\nm MatMul x w -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes={"c": LARGE, "w": LARGE})
    assert unfolded_operators(graph) == {"c", "r"}
    assert unfolded_weights(graph) == {"Q"}


@pytest.mark.parametrize("operator", ["Transpose", "Div", "Concat"])
def test_one_operator_that_must_be_folded_keeps_the_others(operator: str) -> None:
    text = f"c Cast Q -> c\nt {operator} c S -> t\nw Mul t S -> w\nm MatMul x w -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes=dict.fromkeys("ctw", LARGE))
    assert not unfolded_operators(graph)


def test_small_constants_are_folded() -> None:
    graph = drawn("c Cast Q -> c\nm MatMul x c -> y", inputs="x", outputs="y")
    assert constant_operators(graph) == {"c"}
    assert not unfolded_operators(graph)


def test_random_numbers_are_no_constants() -> None:
    graph = drawn("r RandomNormal -> r\nm MatMul x r -> y", inputs="x", outputs="y")
    assert not constant_operators(graph)


def test_a_scaling_shared_by_two_layers() -> None:
    text = "c Cast Q -> c\nw Mul c S -> w\nm MatMul x w -> m\nd Cast R -> d\nv Mul d S -> v\nn MatMul m v -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes=dict.fromkeys("cwdv", LARGE))
    assert unfolded_operators(graph) == set("cwdv")
    assert fusion_groups(graph) == ()


def test_every_folded_result_is_counted() -> None:
    """onnxruntime 1.23 to 1.32 keep the results of both Cast and Transpose until the session is open."""
    text = "c Cast Q -> c\nt Transpose c -> w\nm MatMul x w -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes={"c": LARGE, "w": LARGE, "Q": LARGE // 4})
    found = footprints(graph, 1)
    assert [found[name].copied_bytes for name in "ctm"] == [LARGE, LARGE, 0]
    assert found["t"].workspace_bytes == 2 * LARGE


def test_nothing_is_counted_for_what_is_not_folded() -> None:
    graph = drawn("c Cast Q -> w\nm MatMul x w -> y", inputs="x", outputs="y", sizes={"w": LARGE, "Q": LARGE // 2})
    found = footprints(graph, 1)
    assert [found[name].copied_bytes for name in "cm"] == [0, 0]
