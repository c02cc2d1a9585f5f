"""Hold the open sessions of a bundle: the running step's, those that stay open, and one for each group of steps.

The steps of a group differ only in names and in weights: they are the shards of one operator. Their weights are inputs of
their models, so that the session of one can take those of the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hyps.runtime.bundle.records.files import SmallWeightRecord, WeightRecord
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.execution.interface import RunsDirectly, Session, SessionOpener
from hyps.runtime.execution.tensor import RawTensor, TensorValue


class SessionPool:
    """The sessions of ``steps``. Call `release_before` a step's weights are made resident, then `get` its session."""

    def __init__(
        self, bundle: Path, steps: Sequence[Step], threads: int, opener: SessionOpener, *, verify: bool = True
    ) -> None:
        self._bundle, self._steps, self._threads, self._open = bundle, steps, threads, opener
        self._verify = verify
        #: Whether the process has the arena that steps may ask for.
        self.has_arena = False
        #: The number of sessions that were opened so far.
        self.opened = 0
        self._open_sessions: dict[int, Session] = {}
        self._group_session: tuple[Step, Session] | None = None
        #: What repeats a run of the only step, while its session is open.
        self.direct: RunsDirectly | None = None

    def release_before(self, step: Step) -> None:
        """Close the session of the last group, unless ``step`` belongs to that group."""
        if self._group_session and self._group_session[0].session.group != step.session.group:
            self._group_session = None

    def close(self) -> None:
        """Close all sessions."""
        self.direct = None
        self._open_sessions.clear()
        self._group_session = None

    def get(self, index: int, weights: Mapping[str, TensorValue]) -> Session:
        """Return the session of a step whose ``weights`` are resident. Raises `BundleError`."""
        if index in self._open_sessions:
            return self._open_sessions[index]
        if rows := self._steps[index].rows:  # it holds no memory, and has checked the file
            from hyps.runtime.execution.row_reader import RowReader  # it needs numpy

            return self._open_sessions.setdefault(index, RowReader(self._bundle, rows, verify=self._verify))
        step, (held, self._group_session) = self._steps[index], (self._group_session, None)
        opened_for, session = held or (step, self._opened(step, weights))
        following = self._steps[index + 1 : index + 2]
        if step.session.group and any(each.session.group == step.session.group for each in following):
            self._group_session = opened_for, session
        if opened_for is not step:
            session = BorrowedSession(session, opened_for, step, weights)
        if step.session.stays_open:
            self._open_sessions[index] = session
        return session

    def _opened(self, step: Step, weights: Mapping[str, TensorValue]) -> Session:
        self.opened += 1
        return self._open(
            self._bundle / step.model.path,
            self._threads,
            weights,
            reuse_memory=step.session.reuses_memory,
            optimize=step.session.is_optimizable,
            stock=step.session.is_stock,
            arena=step.session.uses_arena and self.has_arena,
        )


class BorrowedSession:
    """A session opened for one step of a group, as the `Session` of another: it translates names and passes weights."""

    def __init__(self, session: Session, opened_for: Step, step: Step, weights: Mapping[str, TensorValue]) -> None:
        self._session, self._opened_for, self._step = session, opened_for, step
        large = zip(_large(opened_for), _large(step), strict=True)
        small = zip(opened_for.session.small_weights, step.session.small_weights, strict=True)
        self._weights = {theirs.name: weights[own.name] for theirs, own in large}
        self._weights |= {theirs.name: _value(own) for theirs, own in small}

    @property
    def run_s(self) -> float:
        """The seconds that the last run computed."""
        return self._session.run_s

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``: see `Session`."""
        theirs = dict(zip(self._step.outputs, self._opened_for.outputs, strict=True))
        feeds = {name: inputs[own] for name, own in zip(self._opened_for.inputs, self._step.inputs, strict=True)}
        computed = self._session.run([theirs[name] for name in outputs], feeds | self._weights)
        return {name: computed[theirs[name]] for name in outputs}


def _large(step: Step) -> tuple[WeightRecord, ...]:
    return step.weights.tensors if step.weights else ()


def _value(weight: SmallWeightRecord) -> RawTensor:
    return RawTensor(weight.dtype, weight.shape, memoryview(bytearray(weight.data)))
