"""Compiling against copying: seconds in turn, start-up apart, and the compiler's own peak memory.

Start-up is compiling a small network. Each of the two begins by removing what the other wrote, and with a pause: memory that
was free for some seconds the host of a virtual machine has taken back, and getting it again is most of the time of both.
Without a pause both write to pages at hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from hyps.models.catalogue import build
from hyps.models.writer import data_path
from tests.bench.heavy import build_heavy
from tests.bench.place import Place, compile_bundle, compile_command, output
from tests.bench.readings import Compiled, Skipped, Turn

BUDGET = "128MB"
#: Of a model, seconds of pause, turns.
RUNS = (("inside", 0, 5), ("inside", 4, 5), ("beside", 0, 5), ("beside", 4, 5), ("heavy", 4, 3))
_DISK_BYTES = 10**10


def compilation(place: Place) -> tuple[Compiled, ...]:
    """VGG16 in one file, with weights next to it, and a model of 4 GB."""
    if shutil.disk_usage(place.folder).free < _DISK_BYTES:
        raise Skipped(f"copies of a model of 4 GB need {_DISK_BYTES / 1e9:.0f} GB of disk in {place.folder.parent}")
    small, written, bundle, heavy = (place.folder / name for name in ("small.onnx", "copy", "compiled", "heavy.onnx"))
    build("cifar10_vgg", small)
    place.say("building a model of 4 GB")
    build_heavy(heavy, sparseness=1)
    models = {"inside": place.inside(), "beside": place.beside(), "heavy": heavy}
    rows = []
    for name, pause_s, count in RUNS:
        model = models[name]
        files = [path for path in (model, data_path(model)) if path.exists()]
        compile_bundle(model, written, BUDGET)
        turns = []
        for number in range(count):
            place.say(f"compile against cp: {name}, pause {pause_s} s, turn {number + 1} of {count}")
            _clear(bundle, written)
            startup_s = _seconds(compile_command(small, bundle, BUDGET))
            written.mkdir()
            time.sleep(pause_s)
            cp_s = _seconds(["cp", *map(str, files), str(written)])
            _clear(bundle, written)
            time.sleep(pause_s)
            turns.append(Turn(startup_s=startup_s, cp_s=cp_s, compile_s=_seconds(compile_command(model, written, BUDGET))))
        nbytes, peak_bytes = sum(path.stat().st_size for path in files), _peak_bytes(model, written)
        rows.append(Compiled(model=name, model_bytes=nbytes, pause_s=pause_s, turns=tuple(turns), peak_bytes=peak_bytes))
    _clear(bundle, written, heavy, data_path(heavy))
    return tuple(rows)


def _clear(*paths: Path) -> None:
    """Remove files and folders; what was written before is on the disk then."""
    os.sync()
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - started, 6)


def _peak_bytes(model: Path, bundle: Path) -> int:
    """The peak resident memory of ``hypsc compile``."""
    shutil.rmtree(bundle, ignore_errors=True)
    command = [sys.executable, "-m", "tests.bench.peak", *compile_command(model, bundle, BUDGET)]
    return int(output(command).splitlines()[-1])
