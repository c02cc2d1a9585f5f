"""Fold a BatchNormalization into the convolution before it, as onnxruntime's ConvBNFusion would while loading.

Done at load time it would copy the convolution's mapped weights into anonymous memory (DESIGN.md section 5). Here a large
weight stays a reference that gains a factor per output channel, which the bundle writer applies as it copies. The
arithmetic is onnxruntime's own (conv_bn_fusion.cc: float32, scale / sqrt(variance + epsilon)), so that the numbers are too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from hyps.passes.graph import reads
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.weights import Model

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldBatchNormalization:
    """Fold every inference-mode BatchNormalization that alone reads a float32 convolution with constant weights."""

    def __call__(self, model: Model) -> Rewritten:
        """Fold; see the module."""
        graph = model.proto.graph
        readers = Counter(name for node in graph.node for name in reads(node))
        readers.update(value.name for value in graph.output)
        writer = {name: node.name for node in graph.node if node.op_type == "Conv" for name in node.output}
        if not any(node.op_type == "BatchNormalization" and node.input[0] in writer for node in graph.node):
            return Rewritten(model=model)
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        folding = _Folding(Model(proto=proto, weights=dict(model.weights)), readers)
        changes = []
        for node in list(proto.graph.node):
            if node.op_type == "BatchNormalization" and readers[node.input[0]] == 1 and node.input[0] in writer:
                convolution = folding.fold(node)
                if convolution:
                    why = "onnxruntime would do so while loading and copy the weights into memory"
                    changes.append(Change(operator=convolution, what=f"batch normalisation {node.name} folded in", why=why))
        return Rewritten(model=folding.finish(), changes=tuple(changes))


class _Folding:
    """The folding of one model: owns ``model`` and changes it in place."""

    def __init__(self, model: Model, readers: Counter[str]) -> None:
        self._graph = model.proto.graph
        self._model = model
        self._weights = dict(model.weights)
        self._constants = {tensor.name: tensor for tensor in self._graph.initializer}
        self._writer = {name: node for node in self._graph.node for name in node.output}
        self._readers = readers
        self._folded: set[str] = set()

    def fold(self, norm: NodeProto) -> str | None:
        """Fold ``norm`` into the convolution before it; the convolution's name, or None where it does not apply."""
        convolution = self._writer[norm.input[0]]
        parameters = [self._small(name) for name in norm.input[1:5]]
        kernel = self._constants.get(convolution.input[1])
        has_bias = len(convolution.input) > 2
        bias = self._small(convolution.input[2]) if has_bias else None
        trains = any(a.name == "training_mode" and a.i for a in norm.attribute) or len(norm.output) > 1
        if kernel is None or kernel.data_type != TensorProto.FLOAT or trains or (has_bias and bias is None):
            return None
        channels = (kernel.dims[0],)  # opset 7 allows statistics of every position: spatial = 0
        if any(parameter is None or parameter.shape != channels for parameter in parameters):
            return None
        if self._readers[convolution.input[1]] != 1:
            return None
        gamma, beta, mean, variance = (parameter for parameter in parameters if parameter is not None)
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        shift = beta - mean * scale if bias is None else (bias - mean) * scale + beta
        self._scale_kernel(kernel, scale)
        name = f"{norm.name}/bias"
        self._graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), name))
        del convolution.input[2:]
        convolution.input.append(name)
        convolution.output[0] = norm.output[0]
        self._folded.add(norm.name)
        return str(convolution.name)

    def finish(self) -> Model:
        """The model without the folded nodes and the initializers that only they read."""
        kept = [node for node in self._graph.node if node.name not in self._folded]
        del self._graph.node[:]
        self._graph.node.extend(kept)
        used = {name for node in kept for name in reads(node)} | {value.name for value in self._graph.output}
        initializers = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(initializers)
        weights = {name: weight for name, weight in self._weights.items() if name in used}
        return Model(proto=self._model.proto, weights=weights)

    def _small(self, name: str) -> Floats | None:
        tensor = self._constants.get(name)
        if tensor is None or tensor.name in self._weights or tensor.data_type != TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(tensor)

    def _scale_kernel(self, kernel: TensorProto, scale: Floats) -> None:
        shape = tuple(kernel.dims)
        if kernel.name in self._weights:
            factors = scale.astype("<f4").tobytes()
            self._weights[kernel.name] = self._weights[kernel.name].scale_rows(factors, shape)
            return
        column = scale.reshape(-1, *([1] * (len(shape) - 1)))
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * column, kernel.name))
