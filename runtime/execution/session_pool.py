"""The open sessions of a bundle: one step's, those that are kept, and one for steps that are alike.

Steps are alike that differ in names and in weights alone: shards of one operator. Their weights are inputs of their models,
so that the session of one takes those of the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from hyps.runtime.bundle.manifest import STORAGE_TYPES, SmallRecord, Step, WeightRecord
from hyps.runtime.execution.session import Session, SessionOpener, TensorValue


class SessionPool:
    """The sessions of ``steps``; `leave_for` a step before its weights are made resident, then `get` its session."""

    def __init__(self, bundle: Path, steps: Sequence[Step], threads: int, opener: SessionOpener) -> None:
        self._bundle, self._steps, self._threads, self._open = bundle, steps, threads, opener
        self._kept: dict[int, Session] = {}
        self._last: tuple[Step, Session] | None = None

    def leave_for(self, step: Step) -> None:
        """Let the last step's session go, unless it is for ``step``, too."""
        if self._last and self._last[0].alike != step.alike:
            self._last = None

    def get(self, index: int, weights: Mapping[str, TensorValue]) -> Session:
        """The session of a step whose ``weights`` are resident. Raises `BundleError`."""
        if index in self._kept:
            return self._kept[index]
        step, (last, self._last) = self._steps[index], (self._last, None)
        if last is None:
            path = self._bundle / step.model.path
            last = step, self._open(path, self._threads, weights, reuse=step.reuse, plain=step.plain)
        opened, session = last
        if step.alike and any(following.alike == step.alike for following in self._steps[index + 1 : index + 2]):
            self._last = last
        if opened is not step:
            session = Borrowed(session, opened, step, weights)
        if step.kept:
            self._kept[index] = session
        return session


class Borrowed:
    """The session that was opened for a step, for another that is `alike`: a `Session` with the other's names."""

    def __init__(self, session: Session, opened: Step, step: Step, weights: Mapping[str, TensorValue]) -> None:
        self._session, self._opened, self._step = session, opened, step
        large = {theirs.name: weights[own.name] for theirs, own in zip(_large(opened), _large(step), strict=True)}
        small = {theirs.name: _value(own) for theirs, own in zip(opened.small, step.small, strict=True)}
        self._weights = large | small

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``: see `Session`."""
        theirs = dict(zip(self._step.outputs, self._opened.outputs, strict=True))
        feeds = {name: inputs[own] for name, own in zip(self._opened.inputs, self._step.inputs, strict=True)}
        found = self._session.run([theirs[name] for name in outputs], feeds | self._weights)
        return {name: found[theirs[name]] for name in outputs}


def _large(step: Step) -> tuple[WeightRecord, ...]:
    return step.weights.tensors if step.weights else ()


def _value(weight: SmallRecord) -> TensorValue:
    kind = STORAGE_TYPES[weight.dtype]
    array = np.frombuffer(weight.data, kind.storage).reshape(weight.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind.onnx)
