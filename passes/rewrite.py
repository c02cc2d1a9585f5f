"""The rewrite contract and the one driver that runs rewrites and checks each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import onnx

from hyps.passes.errors import PassError, PassFailed, UnsupportedModel
from hyps.passes.shapes import infer_shapes
from hyps.passes.unknown_operators import checkable, foreign_kinds
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing a rewrite did: to which operator, what, and why in words a user can read."""

    operator: str
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A rewrite's result; it is `modified` exactly when it has changes to tell of."""

    model: Model
    changes: tuple[Change, ...] = ()

    @property
    def modified(self) -> bool:
        """Whether anything changed."""
        return bool(self.changes)


class Rewrite(Protocol):
    """A frozen dataclass whose fields are its options."""

    def __call__(self, model: Model) -> Rewritten:
        """Rewrite ``model``, which is not changed itself."""
        ...


def run_rewrites(model: Model, rewrites: Iterable[Rewrite]) -> Rewritten:
    """Run ``rewrites`` in order; after each the model is valid ONNX with all shapes and unchanged inputs and outputs.

    Raises `PassFailed`, naming the rewrite, when one breaks that contract; what a rewrite itself refuses passes through.
    """
    changes: list[Change] = []
    for rewrite in rewrites:
        result = rewrite(model)
        if result.modified:
            model = _checked(type(rewrite).__name__, model, result.model)
            changes += result.changes
    return Rewritten(model=model, changes=tuple(changes))


def _checked(name: str, before: Model, after: Model) -> Model:
    try:
        if made := foreign_kinds(after.proto) - foreign_kinds(before.proto):
            raise UnsupportedModel(f"onnx knows no operators {sorted(made)}")
        typed = infer_shapes(after)
        onnx.checker.check_model(checkable(typed))
    except (PassError, onnx.checker.ValidationError) as error:
        raise PassFailed(f"rewrite {name} left an invalid model: {error}") from error
    if _interface(before) != _interface(typed):
        raise PassFailed(f"rewrite {name} changed the model's inputs or outputs")
    return typed


def _interface(model: Model) -> list[bytes]:
    graph = model.proto.graph
    return [value.SerializeToString(deterministic=True) for value in (*graph.input, *graph.output)]
