"""Fold a BatchNormalization into the convolution before it, as onnxruntime's ConvBNFusion would while loading.

At load time that would copy the convolution's mapped weights into anonymous memory (DESIGN.md section 5). Here a large
weight stays a reference that gains a factor for each output channel; the bundle writer applies it as it copies. The
arithmetic is onnxruntime's own (conv_bn_fusion.cc: float32, scale / sqrt(variance + epsilon)), so the numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.weights import Model

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldBatchNormalization(Rewrite):
    """Fold every inference-mode BatchNormalization that alone reads a float32 convolution with constant weights."""

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these normalisations folded in."""
        graph = model.proto.graph
        convolved = {name for node in graph.node if node.op_type == "Conv" for name in node.output}
        norms = [node.name for node in graph.node if node.op_type == "BatchNormalization" and node.input[0] in convolved]
        if not norms:
            return Rewritten(model=model)
        editor = GraphEditor(model)
        changes = []
        for name in norms:
            if convolution := _fold(editor, editor.operator(name)):
                why = "onnxruntime would do so while loading and copy the weights into memory"
                changes.append(Change(operator=convolution, what=f"batch normalisation {name} folded in", why=why))
        return Rewritten(model=editor.finish() if changes else model, changes=tuple(changes))


def _fold(editor: GraphEditor, norm: gs.Node) -> str | None:
    """Fold ``norm`` into the convolution before it; return the convolution's name, or None where that cannot be."""
    convolution = editor.writer(norm.inputs[0])
    if convolution is None or editor.follower(norm.inputs[0]) is None:
        return None
    weight = convolution.inputs[1]
    kernel = editor.constants.get(weight.name)
    is_shared = len(editor.readers(weight)) != 1 or weight.name in editor.outputs
    if kernel is None or kernel.data_type != TensorProto.FLOAT or is_shared:
        return None
    parameters = [_small(editor, tensor) for tensor in norm.inputs[1:5]]
    has_bias = len(convolution.inputs) > 2
    bias = _small(editor, convolution.inputs[2]) if has_bias else np.zeros(1, np.float32)
    channels = (kernel.dims[0],)  # opset 7 allows statistics of every position: spatial = 0
    trains = norm.attrs.get("training_mode") or len(norm.outputs) > 1
    if trains or bias is None or any(parameter is None or parameter.shape != channels for parameter in parameters):
        return None
    gamma, beta, mean, variance = (parameter for parameter in parameters if parameter is not None)
    epsilon = np.float32(norm.attrs.get("epsilon", 1e-5))
    scale: Floats = gamma / np.sqrt(variance + epsilon)
    shift = (bias - mean) * scale + beta if has_bias else beta - mean * scale
    _scale_kernel(editor, kernel, scale)
    moved = editor.constant(numpy_helper.from_array(shift.astype(np.float32), f"{norm.name}/bias"))
    folded = editor.copy(convolution, convolution.name, [*convolution.inputs[:2], moved], norm.outputs[0])
    editor.replace([convolution, norm], [folded], at=convolution)
    return str(convolution.name)


def _small(editor: GraphEditor, tensor: gs.Tensor) -> Floats | None:
    """Return the values of a float32 constant that is held in the model."""
    values = editor.constants.get(tensor.name)
    if values is None or values.name in editor.weights or values.data_type != TensorProto.FLOAT:
        return None
    return numpy_helper.to_array(values)


def _scale_kernel(editor: GraphEditor, kernel: TensorProto, scale: Floats) -> None:
    """Multiply each output channel of a convolution's weights by its factor."""
    shape = tuple(kernel.dims)
    if kernel.name in editor.weights:
        weight = editor.weights[kernel.name].scale_rows(scale.astype("<f4").tobytes(), shape)
        editor.constant(kernel, weight)
        return
    column = scale.reshape(-1, *([1] * (len(shape) - 1)))
    editor.constant(numpy_helper.from_array(numpy_helper.to_array(kernel) * column, kernel.name))
