"""Ask onnxruntime for shapes that onnx cannot infer.

While it loads a model, onnxruntime computes what depends on shapes alone and takes constant branches of If; and it knows
operators that onnx does not know. It is used only where onnx leaves a shape open: most models compile without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hyps.compiler.errors import OptionError
from hyps.compiler.model_io.classical_shapes import classical_types
from hyps.passes.errors import UnsupportedModel
from hyps.passes.onnx_ops import standard_opset
from hyps.passes.unknown_operators import foreign_kinds, foreign_outputs
from hyps.passes.weights import Model, skeleton

_TENSOR_TYPE = re.compile(r"tensor\((\w+)\)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtShapes:
    """A source of tensor types: onnxruntime, with the operators of the library ``custom_ops``."""

    custom_ops: Path | None = None

    def __call__(self, model: Model) -> Mapping[str, ValueInfoProto]:
        """Return the types of tensors whose element type and shape onnxruntime knows, by name; weights are not read.

        Raises `UnsupportedModel` where onnxruntime refuses the model in this form, in which weights are inputs.
        """
        proto = skeleton(model)
        written = dict.fromkeys(name for node in proto.graph.node for name in node.output if name)
        foreign = foreign_outputs(proto)  # many infer no shapes: then those in the file count
        proto.graph.value_info.extend(value for value in proto.graph.output if value.name in foreign)
        del proto.graph.output[:]
        proto.graph.output.extend(ValueInfoProto(name=name) for name in written)
        types = {name: helper.make_tensor_value_info(name, *kind) for name, kind in self._types(proto).items()}
        if scalars := [name for name, value in types.items() if not value.type.tensor_type.shape.dim]:
            for name in self._unknown_ranks(proto, scalars):
                del types[name]
        return types

    def operator(self, model: Model, node: NodeProto, inputs: Mapping[str, ValueInfoProto]) -> Mapping[str, ValueInfoProto]:
        """Return the types of the outputs of one operator of classical machine learning, by name."""
        return classical_types(model.proto, node, inputs)

    def _unknown_ranks(self, proto: ModelProto, names: Sequence[str]) -> Iterator[str]:
        """Yield those of ``names`` whose rank onnxruntime does not know: it reports them as it reports scalars."""
        proto.graph.node.extend(helper.make_node("Shape", [name], [f"{name}/rank"]) for name in names)
        proto.graph.output.extend(ValueInfoProto(name=f"{name}/rank") for name in names)
        ranks = self._types(proto)
        yield from (name for name in names if ranks.get(f"{name}/rank", (0, None))[1] != [0])

    def _types(self, proto: ModelProto) -> dict[str, tuple[int, list[int]]]:
        """Return the element type and shape of each output that is a tensor of known size."""
        import onnxruntime as ort  # few models need it

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            if self.custom_ops:
                options.register_custom_ops_library(str(self.custom_ops))
        except Exception as error:  # onnxruntime's exception classes have no common public base
            raise OptionError(f"--custom-ops {self.custom_ops} cannot be loaded: {_reason(error)}") from None
        try:
            session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            raise _refusal(proto, _reason(error)) from None
        types = {}
        for value in session.get_outputs():
            kind = _TENSOR_TYPE.match(value.type)
            if kind and all(isinstance(size, int) and size >= 0 for size in value.shape):
                types[value.name] = (TensorProto.DataType.Value(kind[1].upper()), value.shape)
        return types


def _refusal(proto: ModelProto, reason: str) -> UnsupportedModel:
    opset = standard_opset(proto)
    for domain, op_type in sorted(foreign_kinds(proto)):
        if re.search(rf"\b{re.escape(op_type)}\b.* is not a registered|No Op registered for {re.escape(op_type)}\b", reason):
            place = f"of domain {domain!r}" if domain else f"in opset {opset}"
            return UnsupportedModel(
                f"neither onnx nor onnxruntime knows an operator {op_type!r} {place}; name the library that has it with "
                "--custom-ops, or export the model with standard operators"
            )
    if "locale" in reason.lower():
        return UnsupportedModel(
            f"onnxruntime cannot open the model on this computer: {reason}; install this locale here and on the device, for "
            "example with 'locale-gen en_US.UTF-8', or convert the model with another 'locale'"
        )
    return UnsupportedModel(
        f"not every tensor has a shape with these inputs: {reason}; check the shapes of the inputs, or export the model for "
        "these shapes alone"
    )


def _reason(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return next(iter(text.splitlines()), type(error).__name__)
