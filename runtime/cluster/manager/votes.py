"""Votes: the same share is computed by several workers, and what most of them answer counts (``--vote N``).

Equal bits agree; so do floats within a tolerance, for boards of different processors round differently. A worker whose
answer is not the majority's is named, early or late. Answers are kept in memory until the vote is decided: a manager that is
killed meanwhile asks again, as their shares are not done.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.protocol.assembler import Arrival
from hyps.runtime.cluster.protocol.frames import Key

#: Of the largest number in the answer: float32 rounds 6e-8 of it, sums of thousands of products lose two digits.
TOLERANCE = 1e-4
#: Decisions that late answers are compared with.
_REMEMBERED = 32

Answer = Mapping[str, Arrival]


@dataclass(slots=True, kw_only=True)
class _Vote:
    """What workers answered for one share of one job; ``winner`` once that is decided."""

    answers: dict[str, Answer] = field(default_factory=dict)
    arriving: dict[Key, dict[str, Arrival]] = field(default_factory=dict)
    winner: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a vote came to: the majority's answer when it is decided now, and who answered something else.

    ``hopeless``: all have answered, and no majority agrees.
    """

    winner: Answer | None = None
    wrong: tuple[str, ...] = ()
    hopeless: bool = False


class Votes:
    """Votes of ``voters`` workers each."""

    def __init__(self, voters: int) -> None:
        self._voters = voters
        self._ballots: OrderedDict[tuple[str, int], _Vote] = OrderedDict()

    def add(self, worker: str, arrival: Arrival, outputs: tuple[str, ...]) -> Verdict | None:
        """Take a tensor of a worker's answer: None until the answer has all of a share's ``outputs``."""
        key = arrival.key
        ballot = self._ballots.setdefault((key.job, key.share), _Vote())
        held = ballot.arriving.setdefault(key, {})
        held[arrival.tensor] = arrival
        if held.keys() < set(outputs):
            return None
        del ballot.arriving[key]
        if ballot.winner is not None:
            return Verdict(wrong=() if _agree(held, ballot.winner) else (worker,))
        ballot.answers[worker] = held
        for each in ballot.answers.values():
            agreeing = {name for name, other in ballot.answers.items() if _agree(each, other)}
            if len(agreeing) > self._voters // 2:
                ballot.winner = each
                wrong = tuple(sorted(ballot.answers.keys() - agreeing))
                ballot.answers.clear()
                self._forget_old()
                return Verdict(winner=each, wrong=wrong)
        if len(ballot.answers) < self._voters:
            return Verdict()
        del self._ballots[key.job, key.share]
        return Verdict(hopeless=True)

    def knows(self, key: Key) -> bool:
        """A vote about this share of this job is under way, or was decided not long ago."""
        return (key.job, key.share) in self._ballots

    def forget(self, job: str) -> None:
        """A job has failed."""
        for place in [place for place, ballot in self._ballots.items() if place[0] == job and ballot.winner is None]:
            del self._ballots[place]

    def _forget_old(self) -> None:
        decided = [place for place, ballot in self._ballots.items() if ballot.winner is not None]
        for place in decided[:-_REMEMBERED]:
            del self._ballots[place]


def _agree(one: Answer, other: Answer) -> bool:
    return all(_close(arrival, other[name], arrival.record) for name, arrival in one.items())


def _close(one: Arrival, other: Arrival, record: TensorRecord) -> bool:
    if one.digest == other.digest:
        return True
    if record.dtype not in ("float16", "float32", "float64"):
        return False
    import numpy as np  # 14 MB, which a manager needs for this alone

    left, right = (np.frombuffer(each.data, record.dtype).astype(np.float64) for each in (one, other))
    scale = min(float(np.max(np.abs(each), initial=0)) for each in (left, right))  # an infinity is near to nothing
    return bool(np.all(np.abs(left - right) <= TOLERANCE * scale))
