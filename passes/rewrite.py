"""The contract of a rewrite, and the one driver that runs rewrites and checks each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

import onnx
from onnx import TypeProto, ValueInfoProto

from hyps.passes.errors import PassError, PassFailed, UnsupportedModel
from hyps.passes.shapes import infer_shapes
from hyps.passes.unknown_operators import checkable, foreign_kinds
from hyps.passes.weights import Model


class ModelForm(Enum):
    """A stage of a model's preparation: the properties that a rewrite may rely on, and must keep."""

    #: As read from a file. It may not be valid ONNX, so no rewrite can be blamed for that.
    PARSED = auto()
    #: Valid ONNX; shapes may be open or unknown.
    VALID = auto()
    #: Valid ONNX with the shape of every tensor.
    TYPED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that a rewrite did: to which operator, what, and why, in words a user can read."""

    operator: str
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A rewrite's result; it is `modified` exactly when it has changes."""

    model: Model
    changes: tuple[Change, ...] = ()

    @property
    def modified(self) -> bool:
        """Whether anything changed."""
        return bool(self.changes)


class Rewrite(ABC):
    """A change of models of one kind: a frozen dataclass whose fields are its options.

    Inputs and outputs keep their names and types, and their shapes unless ``keeps_shapes`` is false.
    """

    __slots__ = ()
    form: ClassVar[ModelForm] = ModelForm.TYPED
    keeps_shapes: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, model: Model) -> Rewritten:
        """Return ``model`` rewritten; the given one is not changed."""


def run_rewrites(model: Model, rewrites: Iterable[Rewrite]) -> Rewritten:
    """Run ``rewrites`` in order, and check after each what its `ModelForm` and its interface promise.

    Raises `PassFailed`, which names the rewrite, when one breaks its promise. What a rewrite itself raises passes through.
    """
    changes: list[Change] = []
    for rewrite in rewrites:
        result = rewrite(model)
        if result.modified:
            model = _checked(rewrite, model, result.model)
            changes += result.changes
    return Rewritten(model=model, changes=tuple(changes))


def _checked(rewrite: Rewrite, before: Model, after: Model) -> Model:
    name = type(rewrite).__name__
    if rewrite.form is not ModelForm.PARSED:
        try:
            if added := foreign_kinds(after.proto) - foreign_kinds(before.proto):
                raise UnsupportedModel(f"onnx knows no operators {sorted(added)}")
            after = infer_shapes(after) if rewrite.form is ModelForm.TYPED else after
            onnx.checker.check_model(checkable(after))
        except (PassError, onnx.checker.ValidationError) as error:
            raise PassFailed(f"rewrite {name} left an invalid model: {error}") from error
    if _interface(before, rewrite.keeps_shapes) != _interface(after, rewrite.keeps_shapes):
        raise PassFailed(f"rewrite {name} changed the model's inputs or outputs")
    return after


def _interface(model: Model, with_shapes: bool) -> list[tuple[str, bytes]]:
    """Return the names and types of what callers of a model see; documentation and metadata do not count.

    Initializers that are listed among the inputs do not count either.
    """
    graph = model.proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    values = [*(value for value in graph.input if value.name not in weights), *graph.output]
    return [(value.name, _type(value, with_shapes)) for value in values]


def _type(value: ValueInfoProto, with_shape: bool) -> bytes:
    kind = TypeProto()
    kind.CopyFrom(value.type)
    kind.ClearField("denotation")
    if kind.HasField("tensor_type"):
        for dimension in kind.tensor_type.shape.dim:
            dimension.ClearField("denotation")
        if not with_shape:
            kind.tensor_type.ClearField("shape")
    return bytes(kind.SerializeToString(deterministic=True))
