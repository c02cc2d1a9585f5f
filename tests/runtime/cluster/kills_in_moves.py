"""Kill workers and managers while steps move under a stream: each image is answered once, right and in order.

The workers' speeds are drawn again and again, so that a restless manager moves steps all the time; something is killed a
drawn time after each move has begun.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from hyps.runtime.execution.engine import in_memory
from tests.runtime.cluster.devices import Devices

WORKERS = ("w0", "w1", "w2")
#: Multiply-adds a second, drawn between these; seconds until a move must begin, and an answer must come.
_SLOWEST, _FASTEST = 150e6, 1200e6
_PATIENCE_S = 120.0


class KillsInMoves:
    """A stream on three workers, with ``kills`` processes killed during moves; the same seed draws the same."""

    def __init__(self, devices: Devices, kills: int, seed: int, say: Callable[[str], object]) -> None:
        self._devices, self._kills, self._say = devices, kills, say
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._error: BaseException | None = None
        self.answers = self.moves_done = 0
        self.killed: list[tuple[str, str]] = []

    def run(self, pictures: Sequence[Mapping[str, Any]], expected: Sequence[bytes]) -> int:
        """Start the cluster, stream, and kill; return how many images were answered wrongly or out of order."""
        self._start_manager()
        for name in WORKERS:
            self._devices.start_paced(name, _FASTEST)
        self._devices.wait_for_sub_bundles(workers=len(WORKERS))
        threading.Thread(target=self._disturb, daemon=True).start()
        wrong = 0
        with closing(self._devices.engine()) as engine:
            for done in engine.run(in_memory(self._endless(pictures))):
                outputs = done.outputs or {}
                right = [values.tobytes() for values in outputs.values()] == [expected[self.answers % len(expected)]]
                wrong += not right or done.number != self.answers
                self.answers += 1
        if self._error:
            raise self._error
        self.moves_done = self._devices.log("manager").count("the move is done")
        return wrong

    def _start_manager(self) -> None:
        self._devices.start_manager("--workers", str(len(WORKERS)), "--rebalance", "on")

    def _endless(self, pictures: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        number = 0
        while not self._over.is_set():
            yield pictures[number % len(pictures)]
            number += 1

    def _disturb(self) -> None:
        try:
            for _ in range(self._kills):
                self._kill_in_a_move()
                self._await_answer()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()

    def _await_answer(self) -> None:
        answers = self.answers
        self._await("an answer", lambda: self.answers > answers)

    def _kill_in_a_move(self) -> None:
        before = self._begun()
        changed_at = 0.0
        until = time.monotonic() + _PATIENCE_S
        while self._begun() == before:
            if time.monotonic() > until:
                raise TimeoutError(f"no move begins within {_PATIENCE_S:.0f} s: {self._state()}")
            if time.monotonic() - changed_at > 6:  # drawn speeds may suit the present runs
                changed_at = time.monotonic()
                for name in WORKERS:
                    self._devices.pace(name, self._random.uniform(_SLOWEST, _FASTEST))
            time.sleep(0.02)
        time.sleep(self._random.uniform(0, 3))
        phase = self._devices.log("manager").rpartition("steps move")[2]
        place = "settled" if "the move is done" in phase else "draining" if "new jobs take" in phase else "loading"
        name = self._random.choice((*WORKERS, *WORKERS, "manager"))
        self._say(f"{len(self.killed)}: after {self.answers} answers {name} is killed: {place}")
        self.killed.append((name, place))
        self._devices.kill(name)
        time.sleep(self._random.uniform(0, 0.5))
        if name == "manager":
            self._start_manager()
        else:
            self._devices.start_paced(name, self._random.uniform(_SLOWEST, _FASTEST))

    def _state(self) -> str:
        """Return what the manager says of its move, its decision, its sub-bundles and its workers, to find the cause by."""
        command = self._devices.command("hyps-manager", "status", "--hub", self._devices.url, "--json")
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        last = "\n".join(self._devices.log("manager").splitlines()[-30:])
        return f"{self.answers} answers; status: {asked.stdout}{asked.stderr}\nthe manager said last:\n{last}"

    def _begun(self) -> int:
        return self._devices.log("manager").count("steps move")

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} does not come within {_PATIENCE_S:.0f} s: {self._state()}")
            time.sleep(0.05)
