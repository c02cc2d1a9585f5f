"""Kills during moves: steps move under a stream all the time, and each image is answered once, right and in order.

    python -m tests.bench.moves [--kills 200] [--seed 0] [--folder DIR]

The boards' speeds are drawn again and again; workers and managers are killed a drawn time after a move has begun.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import build_layers, mosquitto
from tests.bench.faults import journal_states
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.kills_in_moves import KillsInMoves

_PICTURES = 40


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    """One campaign; exits with 1 where an image was not answered once, right and in order."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.moves", description="Kills while steps move.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work here, and leave logs and journal")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # so that nothing is left
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="hyps-moves-") as name, ExitStack() as stack:
        folder = options.folder or Path(name)
        bundle = build_layers(folder)
        generator = np.random.default_rng(options.seed)
        pictures = [{"image": generator.standard_normal((1, 3, 32, 32), dtype=np.float32)} for _ in range(_PICTURES)]
        executor = load_executor(bundle)
        expected = [executor.run(picture)["scores"].tobytes() for picture in pictures]
        devices = Devices(stack, folder, bundle, BIN, mosquitto(), Settings(restless=True))
        devices.start_hub()
        kills = KillsInMoves(devices, options.kills, options.seed, print)
        wrong = kills.run(pictures, expected)
        time.sleep(2)  # the last answers are acknowledged
        jobs = journal_states(folder / "journal")
    phases = ", ".join(f"{count} {phase}" for phase, count in Counter(phase for _, phase in kills.killed).most_common())
    print(
        f"{kills.answers:,} images, {len(kills.killed)} kills ({phases}), {kills.moves_done} moves to their end; "
        f"{wrong} answered wrongly or out of order; jobs in the journal: {dict(jobs)}"
    )
    is_good = not wrong and sum(jobs.values()) == kills.answers and jobs.keys() <= {"done", "delivered"}
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
