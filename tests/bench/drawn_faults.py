"""Draw the faults of a cluster and their moments; the same seed draws the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("worker", "manager", "hub", "everything", "cable")
WORKERS = ("w0", "w1", "w2")
#: Drawn up to these: how long something is down, a cable is out (others notice after 6), and a fault waits for its moment.
_DOWN_S, _CABLE_S, _MOMENT_S = 1.0, 8.0, 0.5
#: The last images see no faults.
_CALM = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault: what fails, ``moment_s`` after which answer, and for how long."""

    after: int
    kind: str
    boards: tuple[str, ...]
    moment_s: float
    seconds: float


def draw(faults: int, images: int, kinds: Sequence[str], seed: int) -> list[Fault]:
    """The same for the same seed."""
    generator = random.Random(seed)
    part = (images - _CALM) / faults
    found = []
    for number in range(faults):
        kind = generator.choice(kinds)
        everything = generator.sample(["hub", "manager", *WORKERS], 2 + len(WORKERS))
        boards = {"worker": (generator.choice(WORKERS),), "everything": tuple(everything), "cable": (everything[0],)}
        found.append(
            Fault(
                after=int(part * (number + generator.random())),
                kind=kind,
                boards=boards.get(kind, (kind,)),
                moment_s=generator.uniform(0, _MOMENT_S),
                seconds=generator.uniform(0, _CABLE_S if kind == "cable" else _DOWN_S),
            )
        )
    return found
