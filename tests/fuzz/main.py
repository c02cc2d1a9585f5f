"""Fuzz everything that reads files and messages of strangers: ``python -m tests.fuzz.main SECONDS [TARGET ...]``.

With ``CI`` set the cases are the same every time, and ``SECONDS`` is only a limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path("build/fuzz")
#: The rounds of a hundred cases that CI runs of each target: about a minute together.
CI_ROUNDS = {"model": 1, "manifest": 3}
_CI_OTHER_ROUNDS, _MOST_ROUNDS = 4, 1_000_000
#: What a process needs to start and to end next to its time, and for a case that takes long.
_GRACE_S = 120


def fuzz_target(name: str, first_seed: int, rounds: int, seconds: int) -> list[str]:
    """Fuzz a target in a process of its own; return a line for each finding."""
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(FOLDER), *map(str, (first_seed, rounds, seconds))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + _GRACE_S)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    findings = [f"{name}: {line['what']}: {line['input']}" for line in lines if "what" in line]
    if done.returncode:
        findings.append(f"{name}: it ended or took too long on {FOLDER / name}.current: {done.stderr.strip()[-2000:]}")
    cases = sum(line.get("cases", 0) for line in lines)
    print(f"{name}: {cases} cases, {len(findings)} findings", flush=True)
    return findings


def main() -> None:
    """Fuzz each target for its share of the time; exit with 1 if any showed a fault."""
    seconds, names = int(sys.argv[1]), sys.argv[2:] or [*TARGETS]
    FOLDER.mkdir(parents=True, exist_ok=True)
    fixed = bool(os.environ.get("CI"))
    first_seed = 0 if fixed else time.time_ns() % 1_000_000_000
    print(f"seed {first_seed}", flush=True)
    findings = []
    for name in names:
        rounds = CI_ROUNDS.get(name, _CI_OTHER_ROUNDS) if fixed else _MOST_ROUNDS
        findings += fuzz_target(name, first_seed, rounds, max(1, seconds // len(names)))
    print("\n".join(findings))
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
