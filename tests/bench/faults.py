"""Random kills and pulled cables under a stream of images: every image is answered once and right, and how soon after.

    python -m tests.bench.faults [--faults 200] [--images 1000] [--seed 0] [--only KIND] [--verbose]

What is killed (with -9) starts again after a drawn time. The faults are spread over the stream: each comes in its part of
the images, at a drawn moment, when the one before it is mended and followed by an answer. The stream never pauses: where
faults take long there are more images than were asked for. At the end the journal must know each image as one job.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import WIDTH, build_layers, cluster_on, mosquitto, table
from tests.bench.drawn_faults import KINDS, WORKERS, Fault, draw
from tests.cluster_network import Network
from tests.runtime.cluster.devices import Devices

Inputs = Mapping[str, NDArray[Any]]
#: Without an answer for so long the campaign has failed: longer than a lease.
PATIENCE_S = 150.0
_PICTURES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Seconds from a fault to the next answer, and until all images that were under way are answered."""

    number: int
    kind: str
    next_s: float
    all_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a campaign; ``jobs``: how many the journal has in each state.

    ``times`` are the moments of the answers, and ``marks`` those of the faults, by the same clock.
    """

    recoveries: Sequence[Recovery]
    answers: int
    wrong: int
    seconds: float
    times: Sequence[float] = ()
    marks: Sequence[float] = ()
    jobs: Mapping[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Every image was answered once and right, and none was two jobs."""
        return not self.wrong and sum(self.jobs.values()) == self.answers and self.jobs.keys() <= {"done", "delivered"}


class Campaign:
    """One stream of images, and a thread that breaks things meanwhile."""

    def __init__(
        self,
        devices: Devices,
        links: Network | None,
        faults: Sequence[Fault],
        say: Callable[[str], object],
        tolerance: float = 0.0,
        start: Callable[[Devices, str], None] | None = None,
        kind_of: Callable[[Fault], str] = lambda fault: fault.kind,
        longest_s: float = math.inf,
    ) -> None:
        self._kind_of, self._longest_s = kind_of, longest_s
        self._tolerance, self._start = tolerance, start or start_board
        self._devices, self._links, self._faults, self._say = devices, links, faults, say
        self._changed = threading.Condition()
        self._times: list[float] = []
        self._sent = 0
        self._broken = False
        self._error: BaseException | None = None
        self._marks: list[tuple[str, float, int]] = []

    def run(self, images: int, pictures: Sequence[Inputs], expected: Sequence[bytes]) -> Outcome:
        """Send the pictures round and round. Raises whatever an engine raises, `TimeoutError` where answers stop."""
        started = time.monotonic()
        breaking = threading.Thread(target=self._break, daemon=True)
        breaking.start()
        wrong = 0
        with closing(self._devices.engine()) as engine:
            for done in engine.run(in_memory(self._endless(images, pictures))):
                (output,) = done.outputs.values()
                right = expected[done.number % len(expected)]
                if done.number != len(self._times) or not self._is_right(output, right, is_decoded=bool(done.decoded)):
                    wrong += 1
                    self._say(f"image {done.number} is answered wrongly")
                with self._changed:
                    self._times.append(time.monotonic())
                    self._changed.notify_all()
        breaking.join(PATIENCE_S)
        if self._error:
            raise self._error
        return Outcome(
            recoveries=[self._recovery(number, *mark) for number, mark in enumerate(self._marks)],
            answers=len(self._times),
            wrong=wrong,
            times=tuple(self._times),
            marks=tuple(at for _, at, _ in self._marks),
            seconds=time.monotonic() - started,
        )

    def _is_right(self, output: NDArray[Any], right: bytes, *, is_decoded: bool) -> bool:
        """Whether an answer is bit for bit what it should be, or, decoded, within the tolerance."""
        if output.tobytes() == right or not is_decoded:
            return output.tobytes() == right
        expected = np.frombuffer(right, output.dtype)
        return bool(np.abs(output.ravel() - expected).max() <= self._tolerance * np.abs(expected).max())

    def _endless(self, images: int, pictures: Sequence[Inputs]) -> Iterator[Inputs]:
        while not self._broken or (self._sent < images and self._longest_s == math.inf):
            self._sent += 1
            yield pictures[(self._sent - 1) % len(pictures)]

    def _break(self) -> None:
        until = time.monotonic() + self._longest_s
        try:
            for number, fault in enumerate(self._faults):
                if time.monotonic() > until:
                    break
                self._await(partial(self._has_answered, fault.after))
                time.sleep(fault.moment_s)
                boards = " ".join(fault.boards)
                self._say(f"{number}: after {len(self._times)} answers {fault.kind} {boards} {fault.seconds:.2f} s")
                kind = self._kind_of(fault)
                self._fail(fault)
                at, answers = time.monotonic(), len(self._times)
                self._marks.append((kind, at, max(self._sent, answers + 1)))
                time.sleep(fault.seconds)
                self._mend(fault)
                self._await(partial(self._has_answered_since, at))
        except BaseException as error:
            self._error = error
            self._say(f"the campaign breaks off: {error}")
        finally:
            self._broken = True

    def _has_answered(self, count: int) -> bool:
        return len(self._times) >= count

    def _has_answered_since(self, at: float) -> bool:
        return bool(self._times) and self._times[-1] > at

    def _await(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE_S):
                raise TimeoutError(f"no answer for {PATIENCE_S:.0f} s, after {len(self._times)}")

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "cable":
            assert self._links
            self._links.unplug(fault.boards[0])
            return
        for board in fault.boards:
            self._devices.kill(board)

    def _mend(self, fault: Fault) -> None:
        if fault.kind == "cable":
            assert self._links
            self._links.plug(fault.boards[0])
            return
        for board in fault.boards:
            self._start(self._devices, board)

    def _recovery(self, number: int, kind: str, at: float, sent: int) -> Recovery:
        following = next(when for when in self._times if when > at)
        return Recovery(number=number, kind=kind, next_s=following - at, all_s=max(self._times[sent - 1], following) - at)


def start_board(devices: Devices, board: str) -> None:
    """What a board runs."""
    if board == "hub":
        devices.start_hub()
    elif board == "manager":
        devices.start_manager("--workers", str(len(WORKERS)))
    else:
        devices.start_worker(board)


def journal_states(folder: Path) -> Mapping[str, int]:
    """How many jobs a journal has had in each state: of those that are delivered it keeps the last."""
    with closing(sqlite3.connect(f"file:{folder}/journal.sqlite?mode=ro", uri=True)) as base:
        states = Counter(state for (state,) in base.execute("select state from jobs"))
        (first,) = base.execute("select min(rowid) from jobs").fetchone()
    return states + Counter(delivered=(first or 1) - 1)


def campaign(
    folder: Path, faults: int, images: int, seed: int, kinds: Sequence[str], say: Callable[[str], object]
) -> Outcome:
    """The trained classifier on three workers, by links of 94 Mbit/s; without cables where there are no namespaces."""
    bundle = build_layers(folder)
    generator = np.random.default_rng(seed)
    pictures = [{"image": generator.standard_normal((1, 3, 32, 32), dtype=np.float32)} for _ in range(_PICTURES)]
    executor = load_executor(bundle)
    expected = [executor.run(picture)["scores"].tobytes() for picture in pictures]
    with ExitStack() as stack:
        devices, links = cluster_on(stack, folder, bundle, mosquitto(), WORKERS, shaped=True)
        for board in ("hub", "manager", *WORKERS):
            start_board(devices, board)
        devices.wait_for_sub_bundles(workers=len(WORKERS))
        drawn = draw(faults, images, [kind for kind in kinds if links or kind != "cable"], seed)
        outcome = Campaign(devices, links, drawn, say).run(images, pictures, expected)
        time.sleep(2)  # the last answers are acknowledged
    return replace(outcome, jobs=journal_states(folder / "journal"))


def report(outcome: Outcome, out: Console) -> None:
    """Print how soon it recovers, and what came of the images."""
    title = "seconds from a kill or a pulled cable to the next answer, and until all images under way are answered"
    rows = table(title, "what", "times", "next: median", "90 %", "max", "all: median", "90 %", "max")
    for kind in (*KINDS, "all"):
        found = [each for each in outcome.recoveries if kind in (each.kind, "all")]
        if found:
            sides = ([each.next_s for each in found], [each.all_s for each in found])
            cells = (f"{np.quantile(side, share):.2f}" for side in sides for share in (0.5, 0.9, 1))
            rows.add_row(kind, str(len(found)), *cells)
    out.print(rows)
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(outcome.jobs.items()))
    out.print(
        f"{outcome.answers:,} images in {outcome.seconds:.0f} s, {len(outcome.recoveries)} faults; {outcome.wrong} answered "
        f"wrongly; jobs in the journal: {states}"
    )


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    """One campaign in a temporary folder; exits with 1 where an image was not answered once and right."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.faults", description="Random faults under a stream.")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=KINDS, help="this kind alone (repeatable)")
    parser.add_argument("--verbose", action="store_true", help="say each fault")
    parser.add_argument("--folder", type=Path, help="work here, and leave logs and journal")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # so that nothing is left
    logging.disable(logging.WARNING)  # the client says each time that the hub is gone
    out = Console(width=WIDTH, highlight=False)
    say: Callable[[str], object] = out.print if options.verbose else lambda text: None
    with tempfile.TemporaryDirectory(prefix="hyps-faults-") as name:
        folder = options.folder or Path(name)
        outcome = campaign(folder, options.faults, options.images, options.seed, options.only or KINDS, say)
    report(outcome, out)
    for slow in sorted(outcome.recoveries, key=lambda each: -each.all_s)[:5]:
        say(f"slow: {slow.number}, {slow.kind}: {slow.next_s:.2f} s, {slow.all_s:.2f} s")
    sys.exit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
