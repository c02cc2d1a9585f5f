"""An open batch size is taken as one: that is what a device with little memory runs.

A plan depends on every size (what a tensor takes, which operator fits), so that a bundle has fixed ones. Exporters leave the
first dimension of images open; a user who wants another says so.
"""

from __future__ import annotations

from onnx import ModelProto, ValueInfoProto

from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.weights import Model


def assume_batch(model: Model) -> Rewritten:
    """The same model with a batch of one in each input of two dimensions or more whose first alone is open."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    changes = []
    for value in proto.graph.input:
        if _only_batch_is_open(value):
            dimensions = value.type.tensor_type.shape.dim
            open_name = dimensions[0].dim_param or "?"
            dimensions[0].dim_value = 1
            shape = ",".join(str(dimension.dim_value) for dimension in dimensions)
            why = f"the model leaves its first dimension open ({open_name}); --input-shape {value.name}:N,... fixes another"
            changes.append(Change(operator=f"input {value.name}", what=f"taken as [{shape}]", why=why))
    return Rewritten(model=Model(proto=proto, weights=model.weights) if changes else model, changes=tuple(changes))


def _only_batch_is_open(value: ValueInfoProto) -> bool:
    if not value.type.tensor_type.HasField("shape"):
        return False
    is_open = [not dim.HasField("dim_value") or dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim]
    return len(is_open) > 1 and is_open[0] and not any(is_open[1:])
