"""Look at a network's exits: their names, and what computing as far as each of them costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from onnx import ModelProto

from hyps.compiler.bundle_manifest import ends_in_softmax
from hyps.compiler.errors import OptionError
from hyps.compiler.exits.samples import InputForm
from hyps.compiler.model_io.load import load_model
from hyps.compiler.preparation import folded_model
from hyps.compiler.preprocessing import resolve_preprocess
from hyps.passes.cost.compute import multiply_adds
from hyps.passes.graph import Graph, view
from hyps.runtime.bundle.records.tensors import TensorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCost:
    """The cost of computing as far as one exit, with the exits before it.

    ``multiply_adds`` are summed from the input. ``live_bytes`` is the sum of the tensors that the rest of the network needs:
    what crosses the link if the inference is offloaded here; 0 at the last exit.
    """

    name: str
    multiply_adds: int
    live_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierGraph:
    """A classifier with one input, as a graph, and as its file has it (``proto``, without the external weights)."""

    path: Path
    graph: Graph
    proto: ModelProto
    input_name: str
    form: InputForm

    @property
    def classes(self) -> int:
        """The number of classes of the last output."""
        return self.graph.tensors[self.graph.outputs[-1]].shape[-1]

    def is_probability(self, output: str) -> bool:
        """Return whether an output is the result of a softmax."""
        return ends_in_softmax(self.graph, output)


@contextmanager
def open_classifier(path: Path, preprocess: str | None) -> Iterator[ClassifierGraph]:
    """Load the classifier at ``path``; its graph can be used while the context is open.

    Raises `OptionError` unless it has one input and every output is a vector of as many class scores, [1, C].
    """
    with load_model(path) as loaded:
        graph = view(folded_model(loaded, {}).model)
        if len(graph.inputs) != 1:
            raise OptionError(f"{path} has {len(graph.inputs)} inputs; exits are learned for classifiers with one input")
        shapes = [graph.tensors[name].shape for name in graph.outputs]
        for name, shape in zip(graph.outputs, shapes, strict=True):
            if len(shape) != 2 or shape[0] != 1 or shape[1] < 2 or shape != shapes[-1]:
                raise OptionError(
                    f"output {name!r} of {path} is {list(shape)}; every exit is a vector of class scores, [1, classes], "
                    "with as many classes as the last output"
                )
        name = graph.inputs[0]
        tensor = graph.tensors[name]
        record = TensorRecord(dtype=tensor.dtype, shape=tensor.shape)
        recipe = resolve_preprocess(preprocess, name, record) if preprocess else None
        form = InputForm(shape=tensor.shape, dtype=tensor.dtype, preprocess=recipe)
        yield ClassifierGraph(path=path, graph=graph, proto=loaded.given, input_name=name, form=form)


def exit_costs(graph: Graph, exits: Sequence[str]) -> tuple[ExitCost, ...]:
    """Return the cost of each exit, in order of depth.

    Raises `OptionError` for an exit that a later one is computed before.
    """
    writers = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    work = [multiply_adds(graph, operator) for operator in graph.operators]
    ran: set[int] = set()
    costs: list[ExitCost] = []
    for name in exits:
        before = len(ran)
        ran |= {writers[name]} | nx.ancestors(graph.dag, writers[name])
        if len(ran) == before:
            raise OptionError(f"exit {name!r} is computed before {costs[-1].name!r}; outputs must be in order of depth")
        costs.append(
            ExitCost(
                name=name,
                multiply_adds=sum(work[index] for index in ran),
                live_bytes=0 if name == exits[-1] else crossing_bytes(graph, ran, writers),
            )
        )
    return tuple(costs)


def crossing_bytes(graph: Graph, ran: set[int], writers: Mapping[str, int]) -> int:
    """Return the bytes of the tensors that operators outside ``ran`` read and that exist once those in it have run."""
    needed = {
        name
        for index, operator in enumerate(graph.operators)
        if index not in ran
        for name in operator.inputs
        if name in graph.inputs or writers[name] in ran
    }
    return sum(graph.tensors[name].nbytes for name in needed)
