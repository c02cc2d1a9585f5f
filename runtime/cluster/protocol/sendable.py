"""Check, before anything is sent, that each tensor of a bundle can travel between devices."""

from __future__ import annotations

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES
from hyps.runtime.cluster.protocol.frames import (
    MAX_TENSOR_BYTES,
    MIN_CHUNK_BYTES,
    ChunkHeader,
    Key,
    digest_of,
    encode_frame,
)
from hyps.runtime.errors import BundleError
from hyps.runtime.units import megabytes

_REMEDY = "run the bundle on one device, or compile it with fewer cuts, so that this tensor stays inside a partition"


def check_sendable(manifest: Manifest, largest_bytes: int | None = MAX_TENSOR_BYTES) -> None:
    """Raise `BundleError` for a bundle that other devices cannot run.

    That is one with a tensor that cannot be sent in frames, which the error names, and one whose budget has no room for the
    numpy of a worker.
    """
    if manifest.target.planned_interface == "c":
        problem = "the budget was planned for onnxruntime's C interface, which workers do not use"
        raise BundleError(problem, "compile again without --interface c")
    key = Key(job="0" * 32, sub_bundle=len(manifest.steps), attempt=(1 << 31) - 1)
    for name, record in manifest.tensors.items():
        if record.dtype not in STORAGE_TYPES and record.dtype not in PACKED_TYPES:
            raise BundleError(f"tensor {name[:200]!r} is of type {record.dtype}, which cannot be sent to a device", _REMEDY)
        if largest_bytes is not None and record.nbytes > largest_bytes:
            raise BundleError(
                f"tensor {name[:200]!r} has {megabytes(record.nbytes)}, and a hub passes {megabytes(largest_bytes)} at most",
                _REMEDY,
            )
        header = ChunkHeader(
            key=key,
            tensor=name,
            dtype=record.dtype,
            shape=record.shape,
            chunk_bytes=MIN_CHUNK_BYTES,
            index=(1 << 31) - 1,
            digest=digest_of(b""),
        )
        try:
            encode_frame(header, b"")
        except ValueError:
            raise BundleError(f"tensor {name[:200]!r} has a name or shape that is too long to be sent", _REMEDY) from None
