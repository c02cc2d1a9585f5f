"""On the board: run several commands one after the other; print a line of JSON for each, and keep the arrays that they save.

    several.py COMMANDS.json ARRAYS.npz

COMMANDS.json has the words of each command by name. ``{saved}`` in a word stands for a file of that command's own: its array
``a`` is ``name/a`` in ARRAYS.npz. The memory of each is its own, as ``wait4`` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Run all, whatever becomes of each."""
    commands, saved = map(Path, sys.argv[1:])
    arrays = {}
    for name, words in json.loads(commands.read_text()).items():
        place = Path(f"/tmp/{name}.npz")
        print(json.dumps({"name": name, **_run([word.replace("{saved}", str(place)) for word in words])}), flush=True)
        if place.exists():
            with np.load(place) as found:
                arrays.update({f"{name}/{key}": found[key] for key in found.files})
            place.unlink()
    np.savez_compressed(saved, **arrays)


def _run(words: list[str]) -> dict[str, object]:
    started = time.monotonic()
    with Path("/tmp/own-stdout").open("w+") as out, Path("/tmp/own-stderr").open("w+") as err:
        child = subprocess.Popen(words, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return {
        "exit": child.returncode,
        "seconds": time.monotonic() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "stdout": Path("/tmp/own-stdout").read_text(),
        "stderr": Path("/tmp/own-stderr").read_text(),
    }


if __name__ == "__main__":
    main()
