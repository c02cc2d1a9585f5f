"""Define what ``make bench-codes`` keeps in ``docs/codes.json``."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.readings import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRun:
    """A stream in which a worker of a coded group is killed again and again.

    Seconds of each answer: ``calm_s`` of those far from a kill, ``around_s`` of the first ones after it; ``next_s`` are from
    each kill to the next answer, and ``calm_next_s`` the same from any moment far from a kill, in quantiles (`waits_s`).
    """

    name: str
    kills: int
    calm_s: tuple[float, ...]
    around_s: tuple[float, ...]
    next_s: tuple[float, ...]
    decoded: int
    wrong: int
    calm_next_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayRun:
    """Seconds of each inference, one at a time, by links with heavy-tailed delays."""

    name: str
    shards: int
    seconds: tuple[float, ...]
    decoded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingCost:
    """Seconds of a group's slowest shard, and of decoding a loss, hashing included; how far off decoded values were.

    ``errors`` are parts of the operator's largest value, over all patterns of losses; ``inputs``: how many random ones.
    ``moved_bytes`` are those of the group's input and of one shard's result; 0 where they were not noted.
    """

    code: str
    shards: int
    parity: int
    tensor_bytes: int
    shard_s: float
    decode_s: float
    inputs: int
    patterns: int
    error: float
    bound: float
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRun:
    """The accuracy of a network when a part of a layer's channels is lost: by part, from 0 to 0.9; ``images`` each."""

    network: str
    layer: str
    images: int
    accuracy: dict[str, float]
    coded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographRun:
    """A coded photograph classifier, for every pattern of losses on every photograph.

    ``right`` are the photographs whose first class is right without losses, ``changed`` the times that decoding changed a
    first class. ``error`` is the largest error of a score, as a part of the photograph's largest; ``bound`` the codes' own.
    """

    network: str
    parity: int
    codes: int
    patterns: int
    images: int
    right: int
    changed: int
    error: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """A campaign of random kills and pulled cables: seconds to the next answer, by kind.

    ``calm_next_s`` are those from any moment when no image waited for a fault, in quantiles (`waits_s`).
    """

    network: str
    answers: int
    wrong: int
    jobs: dict[str, int]
    next_s: dict[str, tuple[float, ...]]
    calm_next_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesResults:
    """Everything; a part that was never measured is None."""

    kills: Part[tuple[KillRun, ...]] | None = None
    delays: Part[tuple[DelayRun, ...]] | None = None
    decoding: Part[tuple[DecodingCost, ...]] | None = None
    losses: Part[tuple[LossRun, ...]] | None = None
    photographs: Part[tuple[PhotographRun, ...]] | None = None
    faults: Part[FaultRun] | None = None
