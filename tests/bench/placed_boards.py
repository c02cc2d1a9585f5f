"""Run a cluster in network namespaces whose manager places steps as it is told, with workers that have shares of a core."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hyps.runtime.device.process_memory import LEAN_ENVIRONMENT
from tests.runtime.cluster.boards import Boards

#: (first step, step after the last, worker) of each run.
Runs = Sequence[tuple[int, int, str]]

_MANAGER = """
import json, os
from hyps.runtime.cluster.manager import placing
from hyps.runtime.cluster.placement.placement import Placement

given = json.loads(os.environ["HYPS_BENCH_PLACEMENT"])
placement = Placement(
    runs=tuple(range(start, stop) for start, stop, _ in given),
    homes=tuple((home,) for _, _, home in given),
    reasons=("as told",) * len(given),
)
placing.place = lambda *_, **__: placement

from hyps.runtime.cluster.cli.manager import main
main()
"""


class PlacedBoards(Boards):
    """Boards whose manager uses one placement."""

    def start_placed(self, runs: Runs, workers: int) -> None:
        """Start the manager; it waits for so many workers."""
        program = self._folder / "placed_manager.py"
        program.write_text(_MANAGER)
        options: list[str | Path] = [self.bundle, "--hub", self.url, "--journal", self._folder / "journal", "--verbose"]
        environment = {**os.environ, **LEAN_ENVIRONMENT, "HYPS_LEAN": "1", "HYPS_BENCH_PLACEMENT": json.dumps([*runs])}
        with self.network.inside("manager"):
            self._spawn("manager", [sys.executable, program, *options, "--workers", str(workers)], environment)

    def cpu_s(self, name: str) -> float:
        """The seconds of a processor that a process has used."""
        fields = Path(f"/proc/{self.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
