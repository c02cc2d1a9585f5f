"""Replace operators by their shards, each by the method that was chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import view
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.sharding.accumulators import with_accumulators
from hyps.passes.sharding.coefficients import Code
from hyps.passes.sharding.layouts import ConstantValues, Method, SplitLayout, method_phrase
from hyps.passes.sharding.shard_groups import split_within_groups
from hyps.passes.sharding.shard_input import split_by_input
from hyps.passes.sharding.shard_output import split_by_output, split_for_code
from hyps.passes.sharding.shard_spatial import split_spatially
from hyps.passes.sharding.spatial_codes import split_into_tiles
from hyps.passes.sharding.split_layout import split_layout
from hyps.passes.weights import Model
from hyps.runtime.bundle.manifest import Reason

_Splitter = Callable[[GraphEditor, gs.Node, SplitLayout, int], None]
_SPLITTERS: Mapping[Method, _Splitter] = {
    "output": split_by_output,
    "input": split_by_input,
    "spatial": split_spatially,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """An operator to split: the method, the number of shards, and the reason.

    With a ``code`` the shards are of equal width, those of an 8-bit operator emit 32-bit integers, and parity shards are to
    be added later (`hyps.passes.sharding.parity`).
    """

    operator: str
    method: Method
    count: int
    reason: Reason
    code: Code | None = None


def _coded_splitter(layout: SplitLayout) -> _Splitter:
    """Return what splits an operator that has a code."""
    if layout.method == "spatial":
        return split_into_tiles
    return split_within_groups if layout.groups > 1 else split_for_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Rewrite):
    """Split the operators that ``splits`` name."""

    splits: tuple[ShardSpec, ...]

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with shards; raises `UnsupportedModel` for an operator that cannot be split so."""
        if not self.splits:
            return Rewritten(model=model)
        model = with_accumulators(model, [split.operator for split in self.splits if split.code])
        values = ConstantValues.of(view(model))
        nodes = {node.name: node for node in model.proto.graph.node}
        editor = GraphEditor(model)
        changes = []
        for split in self.splits:
            node = nodes[split.operator]
            layout = split_layout(node, split.method, values)
            splitter = _coded_splitter(layout) if split.code else _SPLITTERS[split.method]
            splitter(editor, editor.operator(node.name), layout, split.count)
            what = f"split {method_phrase(node, split.method)} into {split.count} shards"
            changes.append(Change(operator=node.name, what=what, why=str(split.reason)))
        return Rewritten(model=editor.finish(), changes=tuple(changes))
