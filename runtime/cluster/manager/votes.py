"""Compare the results that several workers computed for one sub-bundle, and take the majority's (``--vote N``).

Equal bits agree. So do floats within a tolerance, as boards with different processors round differently. A worker whose
result differs from the majority's is named, whether that result comes early or late. Results stay in memory until the vote
is decided. A manager that is killed before that asks again, as the sub-bundle is not done.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key

#: Relative to the largest number of a result: float32 rounds by 6e-8 of it, and sums of thousands of products lose two
#: digits.
TOLERANCE = 1e-4
#: The number of decided votes that are kept, to compare late results with them.
_REMEMBERED = 32

Answer = Mapping[str, ReceivedTensor]


@dataclass(slots=True, kw_only=True)
class _Vote:
    """The results for one sub-bundle of one job: complete ones by worker, others by attempt; ``winner`` once decided."""

    answers: dict[str, Answer] = field(default_factory=dict)
    arriving: dict[Key, dict[str, ReceivedTensor]] = field(default_factory=dict)
    winner: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The effect of one result: the ``winner`` if that is decided now, and the workers whose results are ``wrong``.

    ``hopeless``: all workers have answered, and no majority agrees.
    """

    winner: Answer | None = None
    wrong: tuple[str, ...] = ()
    hopeless: bool = False


class Votes:
    """The votes of ``voters`` workers each that are open or were decided lately."""

    def __init__(self, voters: int) -> None:
        self._voters = voters
        self._votes: OrderedDict[tuple[str, int], _Vote] = OrderedDict()

    def add(self, worker: str, received: ReceivedTensor, outputs: tuple[str, ...]) -> Verdict | None:
        """Add a tensor of a worker's result; return None until the result has all ``outputs`` of the sub-bundle."""
        key = received.key
        vote = self._votes.setdefault((key.job, key.sub_bundle), _Vote())
        answer = vote.arriving.setdefault(key, {})
        answer[received.tensor] = received
        if answer.keys() < set(outputs):
            return None
        del vote.arriving[key]
        if vote.winner is not None:
            return Verdict(wrong=() if _agree(answer, vote.winner) else (worker,))
        vote.answers[worker] = answer
        for candidate in vote.answers.values():
            agreeing = {name for name, other in vote.answers.items() if _agree(candidate, other)}
            if len(agreeing) > self._voters // 2:
                vote.winner = candidate
                wrong = tuple(sorted(vote.answers.keys() - agreeing))
                vote.answers.clear()
                self._forget_old()
                return Verdict(winner=candidate, wrong=wrong)
        if len(vote.answers) < self._voters:
            return Verdict()
        del self._votes[key.job, key.sub_bundle]
        return Verdict(hopeless=True)

    def knows(self, key: Key) -> bool:
        """Return whether a vote on this sub-bundle of this job is open or was decided lately."""
        return (key.job, key.sub_bundle) in self._votes

    def forget(self, job: str) -> None:
        """Drop a job's open votes."""
        for place in [place for place, vote in self._votes.items() if place[0] == job and vote.winner is None]:
            del self._votes[place]

    def _forget_old(self) -> None:
        decided = [place for place, vote in self._votes.items() if vote.winner is not None]
        for place in decided[:-_REMEMBERED]:
            del self._votes[place]


def _agree(one: Answer, other: Answer) -> bool:
    return all(_close(received, other[name], received.record) for name, received in one.items())


def _close(one: ReceivedTensor, other: ReceivedTensor, record: TensorRecord) -> bool:
    if one.digest == other.digest:
        return True
    if record.dtype not in ("float16", "float32", "float64"):
        return False
    import numpy as np  # 14 MB, which a manager needs for this alone

    left, right = (np.frombuffer(each.data, record.dtype).astype(np.float64) for each in (one, other))
    scale = min(float(np.max(np.abs(each), initial=0)) for each in (left, right))  # an infinity is close to no number
    return bool(np.all(np.abs(left - right) <= TOLERANCE * scale))
