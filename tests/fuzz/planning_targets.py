"""Give the planner damaged boards files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hyps.runtime.cluster.planning.fleets import load_fleet
from hyps.runtime.errors import RuntimeFault
from tests.fuzz.target import Read, Target
from tests.repository import ROOT


def _boards_seeds(scratch: Path) -> Sequence[bytes]:
    return [(ROOT / "docs" / "guide" / "boards.toml").read_bytes()]


def _boards_reader(scratch: Path) -> Read:
    def read(content: bytes) -> None:
        path = scratch / "boards.toml"
        path.write_bytes(content)
        load_fleet(path)

    return read


TARGETS: Mapping[str, Target] = {
    "boards": Target(seeds=_boards_seeds, reader=_boards_reader, mendable=(RuntimeFault,)),
}
