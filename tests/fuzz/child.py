"""Fuzz one target in a process of its own: ``python -m tests.fuzz.child TARGET FOLDER SEED ROUNDS SECONDS``.

Each finding is one line of JSON on standard output, and its input a file. A case that takes too long ends the process with
the stack of every thread on standard error: the input that it was reading stays in ``TARGET.current``.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from hyps.runtime.device.process_memory import memory
from tests.fuzz.target import Read, Target
from tests.fuzz.targets import TARGETS

#: The address space of the process: an allocation beyond it fails, so that a bomb does not take the machine.
_ADDRESS_BYTES = 8 << 30
_EXAMPLES = 100


class Finding(Exception):
    """A fault that a target showed; its text is what and where, without what differs from case to case."""


class Session:
    """The findings of one target, each kind once."""

    def __init__(self, name: str, target: Target, folder: Path, read: Read) -> None:
        self._name, self._target, self._folder, self._read = name, target, folder, read
        self._known = set[str]()
        self.cases = 0

    def check(self, content: bytes) -> None:
        """Read one input. Raises `Finding` for a fault of a new kind, after its input was written to a file."""
        self.cases += 1
        (self._folder / f"{self._name}.current").write_bytes(content)
        assert sys.__stderr__
        faulthandler.dump_traceback_later(self._target.seconds, exit=True, file=sys.__stderr__)
        try:
            self._measured(content)
        except Finding as finding:
            if str(finding) not in self._known:
                self._save(content)
                raise
        finally:
            faulthandler.cancel_dump_traceback_later()

    def report(self, finding: Finding) -> None:
        """Print a finding, whose shrunk input was saved last; the same kind is passed over from now on."""
        path = self._folder / f"{self._name}-{len(self._known)}"
        (self._folder / f"{self._name}.found").replace(path)
        self._known.add(str(finding))
        print(json.dumps({"what": str(finding), "input": str(path)}), flush=True)

    def _measured(self, content: bytes) -> None:
        before = memory().resident_bytes
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
        try:
            self._read(content)
        except self._target.mendable as error:
            if "\n" in str(error):
                raise Finding(f"a message of several lines, {_place(error)}") from None
        except Exception as error:
            raise Finding(f"{type(error).__name__} {_place(error)}") from error
        if memory().peak_bytes - before > self._target.grown_bytes:
            raise Finding(f"more than {self._target.grown_bytes / 1e6:.0f} MB of memory")

    def _save(self, content: bytes) -> None:
        (self._folder / f"{self._name}.found").write_bytes(content)


def _place(error: BaseException) -> str:
    """Return where in our own code an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/tests/fuzz/" not in frame.filename]
    frame = (ours or frames)[-1]
    return f"in {frame.name} ({Path(frame.filename).name}:{frame.lineno})"


def fuzz(session: Session, target: Target, seeds: Sequence[bytes], number: int) -> None:
    """Run one round of drawn cases."""

    @seed(number)
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],
        report_multiple_bugs=False,
    )
    @given(target.damaged(seeds))
    def case(content: bytes) -> None:
        session.check(content)

    try:
        case()
    except Finding as finding:
        session.report(finding)


def main() -> None:
    """Fuzz for some rounds, or until the time is over."""
    name, folder, first, rounds, seconds = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        seeds = target.seeds(Path(scratch))
        session = Session(name, target, folder, target.reader(Path(scratch)))
        for content in seeds:
            session.check(content)
        until = time.monotonic() + seconds
        for number in range(first, first + rounds):
            fuzz(session, target, seeds, number)
            if time.monotonic() > until:
                break
    (folder / f"{name}.current").unlink()
    print(json.dumps({"cases": session.cases}), flush=True)


if __name__ == "__main__":
    main()
