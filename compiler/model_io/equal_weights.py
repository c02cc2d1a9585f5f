"""Give weights with equal bytes one reference, so that a bundle holds them once.

Exporters write tied weights twice, or once for every use. A few bytes of each weight are compared first, and only those that
agree are hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from hyps.compiler.errors import ModelFileError
from hyps.passes.weights import Model, Weight

_SAMPLE_BYTES = 4096
_BLOCK_BYTES = 1 << 20


def share_equal_weights(model: Model) -> Model:
    """Return the model in which weights with equal bytes have one reference: that of the first of them.

    Raises `ModelFileError` for a file that cannot be read.
    """
    weights = dict.fromkeys(model.weights.values())
    first: dict[Weight, Weight] = {}
    try:
        with ExitStack() as stack:
            paths = {weight.path for weight in weights}
            files = {path: stack.enter_context(Path(path).open("rb", buffering=0)) for path in paths}
            stored = [weight for weight in weights if not _is_sparse(files[weight.path])]
            for same_size in _groups(stored, lambda weight: weight.nbytes):
                for similar in _groups(same_size, lambda weight: _sample(files[weight.path], weight)):
                    for equal in _groups(similar, lambda weight: _digest(files[weight.path], weight)):
                        first |= dict.fromkeys(equal, equal[0])
    except OSError as error:
        raise ModelFileError(f"cannot read {error.filename or 'a weights file'}: {error.strerror}; copy it again") from None
    return replace(model, weights={name: first.get(weight, weight) for name, weight in model.weights.items()})


def _groups(weights: Iterable[Weight], key: Callable[[Weight], Hashable]) -> Iterator[list[Weight]]:
    """Yield the groups of two or more weights with the same ``key``."""
    found: dict[Hashable, list[Weight]] = {}
    for weight in weights:
        found.setdefault(key(weight), []).append(weight)
    yield from (group for group in found.values() if len(group) > 1)


def _is_sparse(file: BinaryIO) -> bool:
    """Return whether a file has holes: what lies in these takes no space, but reading them takes time."""
    status = os.fstat(file.fileno())
    return status.st_blocks * 512 < status.st_size


def _sample(file: BinaryIO, weight: Weight) -> bytes:
    """Return some bytes from a contiguous weight's start, and some from its middle."""
    places = (weight.offset, weight.offset + weight.nbytes // 2)
    return b"".join(os.pread(file.fileno(), _SAMPLE_BYTES, place) for place in places)


def _digest(file: BinaryIO, weight: Weight) -> bytes:
    """Return the sha256 of a contiguous weight's bytes."""
    digest = hashlib.sha256()
    for offset in range(0, weight.nbytes, _BLOCK_BYTES):
        count = min(_BLOCK_BYTES, weight.nbytes - offset)
        digest.update(os.pread(file.fileno(), count, weight.offset + offset))
    return digest.digest()
