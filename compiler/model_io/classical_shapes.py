"""Ask onnxruntime for the types of what one operator of classical machine learning (ai.onnx.ml) writes.

onnx has no shape inference for most of these operators. Their shapes follow from the shapes of their inputs, so the operator
runs alone on zeros. Of an ensemble of trees, whose attributes may hold millions of nodes, a single leaf runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hyps.passes.errors import UnsupportedModel

#: The attributes of an ensemble that its output's shape follows from.
_TREE_HEADS = frozenset({"classlabels_int64s", "classlabels_strings", "n_targets", "post_transform", "aggregate_function"})


def classical_types(proto: ModelProto, node: NodeProto, inputs: Mapping[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """Return the types of the outputs of ``node``, an operator of ``proto``, for ``inputs`` of fixed shapes.

    Raises `UnsupportedModel` where onnxruntime cannot run the operator.
    """
    import onnxruntime as ort  # few models need it

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    names = [name for name in node.input if name]
    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [_probe(node)],
        "operator",
        [inputs[name] for name in names if name in inputs],
        [ValueInfoProto(name=name) for name in outputs],
        [constants[name] for name in names if name not in inputs],
    )
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(outputs, {name: _zeros(value) for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's exception classes have no common public base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedModel(
            f"onnxruntime cannot run operator {node.name!r} ({node.domain}.{node.op_type}) alone on zeros: {reason}"
        ) from None
    kinds = {value.name: re.fullmatch(r"tensor\((\w+)\)", value.type) for value in session.get_outputs()}
    return {
        name: helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind[1].upper()), np.shape(result))
        for name, result in zip(outputs, results, strict=True)
        if (kind := kinds[name]) is not None
    }


def _zeros(value: ValueInfoProto) -> NDArray[Any]:
    kind = value.type.tensor_type
    shape = [dimension.dim_value for dimension in kind.shape.dim]
    if kind.elem_type == TensorProto.STRING:
        return np.full(shape, "", object)
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _probe(node: NodeProto) -> NodeProto:
    """Return an operator with the same shapes that runs on zeros; of an ensemble of trees, one with a single leaf."""
    if node.op_type == "OneHotEncoder":  # zeros may be no category
        encoder = helper.make_node(node.op_type, node.input, node.output, node.name, domain=node.domain, zeros=1)
        encoder.attribute.extend(attribute for attribute in node.attribute if attribute.name != "zeros")
        return encoder
    if not node.op_type.startswith("TreeEnsemble"):
        return node
    stump = helper.make_node(node.op_type, node.input, node.output, node.name, domain=node.domain)
    stump.attribute.extend(attribute for attribute in node.attribute if attribute.name in _TREE_HEADS)
    if node.op_type == "TreeEnsemble":
        kind = next((each.t.data_type for each in node.attribute if each.name == "leaf_weights"), TensorProto.FLOAT)
        attributes: dict[str, Any] = {"tree_roots": [0], "leaf_targetids": [0]}
        attributes |= {f"nodes_{name}": [0] for name in ("featureids", "truenodeids", "falsenodeids")}
        attributes |= {f"nodes_{name}": [1] for name in ("trueleafs", "falseleafs")}
        attributes["nodes_modes"] = helper.make_tensor("modes", TensorProto.UINT8, [1], [0])
        attributes["nodes_splits"] = helper.make_tensor("splits", kind, [1], [0.0])
        attributes["leaf_weights"] = helper.make_tensor("weights", kind, [1], [0.0])
    else:
        leaf = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
        attributes = {f"nodes_{name}": [0] for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")}
        attributes |= {f"{leaf}_{name}": [0] for name in ("treeids", "nodeids", "ids")}
        attributes |= {"nodes_modes": ["LEAF"], "nodes_values": [0.0], f"{leaf}_weights": [1.0]}
    stump.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return stump
