"""Storage-bound: VGG16 where the storage is slow and the file cache too small, an inference at a time and in a batch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.contender import served
from tests.bench.place import Place, compile_command
from tests.bench.readings import Batch, Slow, Storage
from tests.bench.summary import LEAN
from tests.bench.throttled import forget, throttled

READ_BYTES_PER_S = 60_000_000
#: For a batch: to this machine what a microSD card of 22 MB/s is to a board whose processor is 14 times slower.
BATCH_READ_BYTES_PER_S = 300_000_000
MEMORY_BYTES = 300_000_000
#: Behind the first.
ROUNDS = 3
BATCH, BATCH_BUDGET_MB = 64, 128
#: ``hyps-run``, which tells at the end what it made the kernel read.
_COUNTED = """
from hyps.runtime.cli.main import main
from hyps.runtime.device.process_memory import storage_bytes_read
try:
    main()
finally:
    print(storage_bytes_read())
"""


def storage(place: Place) -> Storage:
    """Measure each contender alone, from a cold cache: bytes read, and seconds."""
    contenders = {LEAN: ["lean", str(place.beside())]}
    contenders |= {f"bundle, {budget} MB": ["bundle", str(_bundle(place, budget))] for budget in (128, 256)}
    rows = []
    with throttled(place.folder, read_bytes_per_s=READ_BYTES_PER_S, memory_bytes=MEMORY_BYTES) as enter:
        for label, arguments in contenders.items():
            place.say(f"slow storage: {label}")
            arguments += [str(place.image()), "1"]
            forget(place.folder)
            rows.append(Slow(label=label, process=served(arguments, ROUNDS + 1, enter)))
    return Storage(read_bytes_per_s=READ_BYTES_PER_S, memory_bytes=MEMORY_BYTES, rows=tuple(rows))


def _bundle(place: Place, budget_mb: int) -> Path:
    """VGG16 for one thread and this budget, on a device with this storage and no more memory for cached files."""
    target, bundle = slow_target(place.folder / "slow-storage.toml", MEMORY_BYTES), place.folder / f"slow-{budget_mb}"
    command = compile_command(place.beside(), bundle, f"{budget_mb}MB")
    subprocess.run([*command, "--target", str(target)], check=True, stdout=subprocess.DEVNULL)
    return bundle


def slow_target(path: Path, memory_bytes: int) -> Path:
    """Write a target with so much memory, cached files included, and storage of `READ_BYTES_PER_S`."""
    path.write_text(
        f'name = "slow-storage"\ntitle = "Slow storage"\nmemory_bytes = {memory_bytes}\nreserved_bytes = 0\ncores = 1\n'
        f'cpu = "x86-64"\nstorage_read_bytes_per_s = {READ_BYTES_PER_S}\n'
    )
    return path


def batch(place: Place) -> Batch:
    """``hyps-run`` on a folder of inputs, all in one batch, from a cold cache: the weights are read once for all."""
    bundle, inputs = place.bundle(BATCH_BUDGET_MB), place.folder / "inputs"
    inputs.mkdir()
    for number in range(BATCH):
        shutil.copy(place.image(), inputs / f"{number:02}.npy")
    command = [sys.executable, "-c", _COUNTED, bundle, inputs, "--batch", str(BATCH), "--threads", "1", "--json"]
    with throttled(bundle, read_bytes_per_s=BATCH_READ_BYTES_PER_S, memory_bytes=MEMORY_BYTES) as enter:
        place.say(f"slow storage: a batch of {BATCH}")
        forget(bundle)
        started = time.perf_counter()
        done = subprocess.run([*enter, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - started
    *said, read_bytes = map(json.loads, done.stdout.splitlines())
    return Batch(
        label=f"bundle, {BATCH_BUDGET_MB} MB",
        read_bytes_per_s=BATCH_READ_BYTES_PER_S,
        memory_bytes=MEMORY_BYTES,
        seconds=round(seconds, 6),
        compute_s=tuple(line["latency_s"] for line in said),
        read_bytes=read_bytes,
        peak_bytes=max(line["peak_rss_bytes"] for line in said),
    )
