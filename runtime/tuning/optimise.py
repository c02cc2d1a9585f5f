"""Have onnxruntime optimise one partition for this processor and write the result to files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnxruntime as ort

from hyps.runtime.bundle.records.files import FileRecord, WeightsRecord
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.session import session_options
from hyps.runtime.tuning.stored_weights import stored_weights

#: Smaller weights are part of the model's file, as in the bundles that hypsc writes.
_STORED_BYTES = 1 << 16
#: By these bytes a partition computes in a layout of the processor: an operator's domain (NodeProto 7) and an attribute
#: that is 1 (AttributeProto 3). Every model that onnxruntime writes imports the domains, and may have the attribute as 0.
_LAYOUTS = (b"\x3a\x13com.microsoft.nchwc", b"\x3a\x14com.ms.internal.nhwc", b"channels_last\x18\x01")
#: Parts of the names of operators that round to 8 bits or fewer.
_ROUNDING = (b"QuantizeLinear", b"QLinear", b"DynamicQuantize")


def write_optimised(source: Path, target: Path, custom_ops: Path | None) -> None:
    """Write the model at ``source`` to ``target``, as ``ORT_ENABLE_ALL`` computes it, and its large weights next to it.

    The weights' file has the name that `weights_path` returns; there is none where no weight is large. Memory is that of the
    partition's weights, and three times the largest of them while its layout is changed (onnxruntime 1.32). Raises
    `BundleError` where onnxruntime refuses.
    """
    options = session_options(1, custom_ops)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    prefix = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{prefix}file_name", weights_path(target).name)
    options.add_session_config_entry(f"{prefix}min_size_in_bytes", str(_STORED_BYTES))
    try:
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes have no common public base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"onnxruntime cannot optimise {source}: {reason}") from None


def weights_path(model: Path) -> Path:
    """Return the place of the large weights of an optimised model."""
    return model.with_suffix(".weights")


def has_layout(model: Path) -> bool:
    """Return whether an optimised model computes in a layout of this processor."""
    content = model.read_bytes()
    return any(name in content for name in _LAYOUTS)


def has_roundings(model: Path) -> bool:
    """Return whether a model rounds to 8 bits or fewer.

    Such a rounding makes a whole step of a difference in the last bit, wherever that comes from.
    """
    content = model.read_bytes()
    return any(name in content for name in _ROUNDING)


def file_record(folder: Path, path: Path) -> FileRecord:
    """Return the record of a file of the bundle in ``folder``."""
    with path.open("rb", buffering=0) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRecord(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest)


def weights_record(folder: Path, model: Path) -> WeightsRecord | None:
    """Return the record of an optimised model's large weights; None where it has none."""
    path = weights_path(model)
    if not path.exists():
        return None
    file = file_record(folder, path)
    return WeightsRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, tensors=stored_weights(model))
