"""Measure how exactly the parity shards of a bundle replace lost shards, for every pattern of losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.passes.sharding.coefficients import decoding_rows
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import Manifest, OutputRecord

#: Of a parity tensor, this many of the elements with the largest errors are decoded in every pattern.
_ELEMENTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDeviation:
    """The largest error of a decoded value of one operator, over all patterns of losses, as a part of its largest output."""

    name: str
    shards: int
    parity: int
    max_rel: float
    error_bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound that the bundle states."""
        return self.max_rel <= self.error_bound


def keeping_code_tensors(manifest: Manifest) -> Manifest:
    """Return the schedule with the tensors of all (parity) shards as further outputs."""
    coded = {name for code in manifest.codes for name in code.tensors}
    kept: dict[str, None] = {}
    steps = []
    for step in manifest.steps:
        kept |= dict.fromkeys(name for name in step.outputs if name in coded)
        steps.append(msgspec.structs.replace(step, live=tuple(dict.fromkeys((*step.live, *kept)))))
    known = {output.name for output in manifest.outputs}
    more = (OutputRecord(name=name, probabilities=False) for name in kept if name not in known)
    return msgspec.structs.replace(manifest, steps=tuple(steps), outputs=(*manifest.outputs, *more), codes=())


def code_deviation(code: CodeRecord, tensors: Mapping[str, NDArray[Any]]) -> CodeDeviation:
    """Return the deviation of a code whose shards and parity shards computed ``tensors``.

    A decoded shard differs from the shard that was lost by a row of the inverse coefficients times the errors of the parity
    tensors, so only those are computed.
    """
    shards = np.array([tensors[name].astype(np.float64).ravel() for name in code.shards])
    parity = np.array([tensors[name].astype(np.float64).ravel() for name in code.parity])
    coefficients = np.array(code.coefficients)
    errors = parity - coefficients @ shards
    worst = np.argsort(-np.abs(errors).max(axis=0))[:_ELEMENTS]
    decoded = np.abs(decoding_rows(coefficients) @ errors[:, worst]).max(initial=0.0)
    largest = np.abs(shards).max(initial=0.0)
    return CodeDeviation(
        name=code.name,
        shards=len(code.shards),
        parity=len(code.parity),
        max_rel=float(decoded / largest) if largest and decoded else float(decoded),
        error_bound=code.error_bound,
    )
