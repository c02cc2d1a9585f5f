"""The order in which onnxruntime runs the operators of a file, which is not the file's; and what is live then.

By default (``ExecutionOrder.DEFAULT``) a session walks back from the operators that nobody reads and runs each behind what
it reads, the producer with the highest index first (onnxruntime 1.31, ``Graph::ReverseDFSFrom``). Indices are those of the
file, but what a fusion makes while the session loads gets the next free one, in the order of such a walk. So
of branches that join, those that end in a fused operator (Conv and Relu) run first, in the file's order, then the others,
in reverse. ``PRIORITY_BASED`` takes the lowest index that is ready: the file's order, but the reverse of what is fused.

Checked against the profiles of sessions: right for branched networks of Conv, Gemm and activations (GoogLeNet, SqueezeNet,
NanoDet, YuNet); not always where onnxruntime fuses the sum of two convolutions (ResNet's shortcuts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from hyps.passes.cost.costs import Costs
from hyps.passes.cost.liveness import Lifetime
from hyps.passes.graph import Graph, Operator

#: What becomes part of a Conv (ConvActivationFusion) and of a Gemm (GemmActivationFusion) before it.
_ACTIVATIONS: Mapping[str, frozenset[str]] = {
    "Conv": frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"}),
    "Gemm": frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Softsign"}),
}


def session_order(graph: Graph, indices: Sequence[int], owed: Collection[str]) -> tuple[int, ...]:
    """The operators ``indices`` as a session runs a file that holds them in this order and has the outputs ``owed``."""
    walk = _Walk([graph.operators[index] for index in indices], owed)
    walk.fuse(walk.sum_and_relu)
    walk.fuse(walk.activation)
    return tuple(indices[place] for head in walk.order() for place in walk.members[head])


def file_order(
    graph: Graph, costs: Costs, lives: Mapping[str, Lifetime], span: range, entering_bytes: int
) -> tuple[tuple[int, ...], int]:
    """The order that the operators of a partition should have in its file, and the most bytes live when a session runs it.

    Either the graph's own order, or the one that a session makes of it: reversed branches are reversed once more.
    ``entering_bytes`` cross the cut before the partition, without the model's inputs.
    """
    given = tuple(span)
    made = (name for index in given for name in graph.operators[index].outputs)
    owed = {name for name in made if lives[name].last >= span.stop}
    run = session_order(graph, given, owed)
    if run == given:
        return given, int(costs.activations_from(span.start, span.stop)[-1])
    ways = ((given, run), (run, session_order(graph, run, owed)))
    needs = [_most_made(graph, costs, lives, order, span) for _, order in ways]
    best = needs.index(min(needs))
    return ways[best][0], costs.input_bytes + entering_bytes + needs[best]


def _most_made(graph: Graph, costs: Costs, lives: Mapping[str, Lifetime], order: Sequence[int], span: range) -> int:
    """The most bytes, workspace included, that the operators of a partition have made and still need, run in ``order``."""
    unread = Counter(name for index in order for name in graph.operators[index].inputs)
    live = most = 0
    for index in order:
        operator = graph.operators[index]
        in_place = int(costs.reused[index]) if costs.reused_born[index] >= span.start else 0
        live += sum(graph.tensors[name].nbytes for name in operator.outputs)
        most = max(most, live + int(costs.workspace[index]) - in_place)
        unread.subtract(operator.inputs)
        for name in (*operator.inputs, *operator.outputs):
            if not unread[name] and lives[name].born >= span.start and lives[name].last < span.stop:
                live -= graph.tensors[name].nbytes
    return most


class _Walk:
    """Operators by their place in a file, and the fused ones they become; a fused one is called by its first."""

    def __init__(self, operators: Sequence[Operator], owed: Collection[str]) -> None:
        self.members = {place: [place] for place in range(len(operators))}
        self._operators = operators
        self._head = list(range(len(operators)))
        self._index = list(range(len(operators)))
        self._next = len(operators)
        self._writer = {name: place for place, operator in enumerate(operators) for name in operator.outputs}
        self._readers: dict[str, list[int]] = {}
        for place, operator in enumerate(operators):
            for name in operator.inputs:
                self._readers.setdefault(name, []).append(place)
        self._owed = owed

    def order(self) -> list[int]:
        """The walk: every operator behind what it reads, the highest index first."""
        before = {head: self._before(head) for head in self.members}
        read = {head for heads in before.values() for head in heads}
        stack = [(head, False) for head in sorted(self.members, key=self._index.__getitem__) if head not in read]
        seen: set[int] = set()
        order = []
        while stack:
            head, done = stack.pop()
            if done:
                order.append(head)
            elif head not in seen:
                seen.add(head)
                stack.append((head, True))
                stack += [(other, False) for other in before[head] if other not in seen]
        return order

    def fuse(self, followers: Callable[[int], Sequence[int]]) -> None:
        """Let each operator that has ``followers`` take them in, in the order of a walk; it gets the next index."""
        for head in self.order():
            if head in self.members and (taken := followers(head)):
                for place in taken:
                    self.members[head] += self.members.pop(place)
                    self._head[place] = head
                self.members[head].sort()
                self._index[head] = self._next
                self._next += 1

    def activation(self, head: int) -> Sequence[int]:
        """The activation that alone reads a Conv or a Gemm."""
        after = self._only_reader(self.members[head][-1])
        kinds = _ACTIVATIONS.get(self._operators[head].op_type, frozenset())
        return [after] if after is not None and self._operators[after].op_type in kinds else []

    def sum_and_relu(self, head: int) -> Sequence[int]:
        """The sum with another activation, and its Relu, behind a Conv (ConvAddActivationFusion)."""
        added = self._only_reader(self.members[head][-1]) if self._operators[head].op_type == "Conv" else None
        if added is None or self._operators[added].op_type != "Add" or self._operators[added].weights:
            return []
        after = self._only_reader(added)
        return [added, after] if after is not None and self._operators[after].op_type == "Relu" else []

    def _only_reader(self, place: int) -> int | None:
        """The one operator that reads a result, if nothing else took that in."""
        outputs = self._operators[place].outputs
        readers = self._readers.get(outputs[0], [])
        alone = len(outputs) == len(readers) == 1 and outputs[0] not in self._owed
        return readers[0] if alone and self._head[readers[0]] == readers[0] else None

    def _before(self, head: int) -> list[int]:
        """What an operator reads from, by index."""
        names = (name for place in self.members[head] for name in self._operators[place].inputs if name in self._writer)
        heads = {self._head[self._writer[name]] for name in names} - {head}
        return sorted(heads, key=self._index.__getitem__)
