"""Define what ``make bench-exits`` keeps in ``docs/early-exits.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyps.runtime.io.files import replacing
from tests.bench.readings import Part, dump


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRow:
    """One exit of the trained network: on the images that it was trained on, on those held out, on the test images."""

    name: str
    multiply_adds: int
    live_bytes: int
    training: tuple[float, float]
    held_out: tuple[float, float]
    test: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaRun:
    """Policies for beta between exits ``place`` and ``place + 1``, by the ``loss`` that beta is made of.

    The exits at which test images end on average, counted from 1, by policy; that of DQN is the mean of its seeds.
    """

    place: int
    loss: str
    beta: float
    mean_exit: dict[str, float]
    dqn_seeds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaResults:
    """Policies for beta between exits; ``curve`` are betas with the mean exit and the accuracy of the optimum for each."""

    runs: tuple[BetaRun, ...]
    curve: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRun:
    """The mean values of test images under policies: DQN by seed, and those that do not depend on a seed."""

    beta: float
    dqn: tuple[float, ...]
    others: dict[str, float]
    offloaded: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuaranteeRun:
    """Thresholds from ``resamplings`` drawings of ``inputs``: how often the promise was broken, and what was computed."""

    method: str
    most_loss: float
    confidence: float
    inputs: int
    resamplings: int
    broken: int
    never: int
    computed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRun:
    """The time of one decision, its file, and for DQN how many of ``states`` torch decides otherwise."""

    policy: str
    median_s: float
    slow_s: float
    file_bytes: int
    states: int = 0
    differ: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """What a policy reaches on the test images: accuracy, joules and seconds of an image, predicted from multiply-adds."""

    policy: str
    setting: str
    accuracy: float
    joules: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedRun:
    """DQN with and without a weight on one class: the mean rates of errors of test images, and its seeds' for that class.

    ``weighted_class`` counts from 0. ``mean_exit`` counts from 1.
    """

    weight: float
    weighted_class: int
    class_errors: float
    other_errors: float
    mean_exit: float
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRow:
    """Inferences that end at one exit, on slow storage: medians, and what the plan says is read until there.

    ``storage_bytes`` is what the kernel read for the process, ``computing_s`` the seconds where all files are cached,
    None if not measured. The last row of a bundle is its whole schedule.
    """

    exit: str
    planned_bytes: int
    storage_bytes: float
    seconds: float
    computing_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRun:
    """A network with attached exits on slow storage; ``rates`` are the exit rates that it was compiled with."""

    network: str
    weight_bytes: int
    budget_bytes: int
    read_bytes_per_s: int
    rates: tuple[float, ...]
    expected_bytes: float
    attach_s: float
    attach_peak_bytes: int
    peak_bytes: int
    rows: tuple[StorageRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitsResults:
    """All parts; None for one that was not measured yet."""

    accuracy: Part[tuple[ExitRow, ...]] | None = None
    betas: Part[BetaResults] | None = None
    constant: Part[SeedRun] | None = None
    varied: Part[SeedRun] | None = None
    guarantee: Part[tuple[GuaranteeRun, ...]] | None = None
    decisions: Part[tuple[DecisionRun, ...]] | None = None
    pareto: Part[tuple[ParetoPoint, ...]] | None = None
    classes: Part[tuple[WeightedRun, ...]] | None = None
    storage: Part[tuple[StorageRun, ...]] | None = None


def save_exits(results: ExitsResults, path: Path) -> None:
    """Write the results."""
    with replacing(path) as partial:
        partial.write_text(dump(results), "utf-8")


def load_exits(path: Path) -> ExitsResults:
    """Return the results in a file, none where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=ExitsResults) if path.exists() else ExitsResults()
