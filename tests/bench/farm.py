"""``make bench-dask``: VGG16 on Dask workers of this machine; the table goes to ``docs/dask.md``, too."""

from __future__ import annotations

import datetime
import logging
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hyps.models.catalogue import build
from hyps.runtime.dask.engine import DaskEngine
from hyps.runtime.execution.engine import TensorInput, run_one
from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import WIDTH, table
from tests.repository import BIN, ROOT
from tests.runtime.dask.farm import Farm

PAGE = ROOT / "docs" / "dask.md"
HEAD = """\
# On Dask, measured

Written by `make bench-dask`; do not edit. A scheduler, workers of one thread each, and a client, all on one machine:
{machine}. {versions}. Measured {when}.
"""
#: A worker keeps all weights of VGG16, or streams most.
LARGE_BYTES, SMALL_BYTES = 900_000_000, 300_000_000
STREAM, PHOTOGRAPHS, ALONE = 96, 1000, 12
#: Images alone, in a process of their own, as fast as they go: what the machine itself gives for two at a time.
_ALONE = """
import sys, time, numpy as np
from pathlib import Path
from hyps.runtime.execution.loading import load_executor
executor = load_executor(Path(sys.argv[1]), threads=1)
(name,) = executor.manifest.inputs
image = {name: np.zeros(executor.manifest.tensors[name].shape, np.float32)}
for _ in range(3):
    executor.run(image, again=True)
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for _ in range(40):
    executor.run(image, again=True)
print(40 / (time.perf_counter() - started), flush=True)
"""


def main() -> None:
    """All of it, in a temporary folder."""
    logging.disable(logging.WARNING)
    out = Console(width=WIDTH, highlight=False, record=True)
    with tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch:
        folder = Path(scratch)
        build("vgg16", folder / "vgg16.onnx")
        bundle = folder / "vgg16"
        options: list[str | Path] = ["--memory", "200MB", "--threads", "1", "--preprocess", "imagenet-caffe", "-o", bundle]
        subprocess.run([BIN / "hypsc", "compile", folder / "vgg16.onnx", *options], check=True, capture_output=True)
        throughput(folder, bundle, out)
        latency(folder, bundle, out)
        archive(folder, bundle, out)
    model = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    head = HEAD.format(
        machine=f"{os.cpu_count()} cores of {model[0] if model else platform.machine()}, Linux {platform.release()}",
        versions=", ".join(f"{name} {metadata.version(name)}" for name in ("hyps", "onnxruntime", "distributed", "numpy")),
        when=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    text = "\n".join(line.rstrip() for line in out.export_text().splitlines())
    PAGE.write_text(f"{head}\n```\n{text}\n```\n")


@contextmanager
def farm(folder: Path, workers: int, memory_bytes: int) -> Iterator[Farm]:
    """A scheduler and workers w0, w1 and so on."""
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        made = Farm(stack, Path(place), BIN)
        made.start_scheduler()
        for number in range(workers):
            made.start_worker(f"w{number}", memory_bytes)
        yield made


def throughput(folder: Path, bundle: Path, out: Console) -> None:
    """A stream of images on one worker and on two; and what two processes without Dask give here."""
    columns = ("workers", "MB each may hold", "images a s", "ratio", "peak MB", "tasks")
    rows = table(f"a stream of {STREAM} images", *columns)
    executor = load_executor(bundle)
    (name,) = executor.manifest.inputs
    image = {name: np.random.default_rng(0).standard_normal(executor.manifest.tensors[name].shape, dtype=np.float32)}
    expected = {key: value.tobytes() for key, value in executor.run(image).items()}
    executor.make_room()
    for memory_bytes in (LARGE_BYTES, SMALL_BYTES):
        one = None
        for workers in (1, 2):
            with farm(folder, workers, memory_bytes) as made, closing(DaskEngine(bundle, made.url)) as engine:
                for _ in engine.run([TensorInput(tensors=image)] * STREAM):  # loads
                    pass
                started = time.perf_counter()
                same = all(_bits(done.outputs) == expected for done in engine.run([TensorInput(tensors=image)] * STREAM))
                per_s = STREAM / (time.perf_counter() - started)
                one = one or per_s
                peaks = " ".join(f"{made.resident_bytes(f'w{number}') / 1e6:.0f}" for number in range(workers))
                cells = (
                    f"{memory_bytes / 1e6:.0f}",
                    f"{per_s:.2f}",
                    f"{per_s / one:.2f}",
                    peaks,
                    engine.schedule(STREAM).plan.reason,
                )
                rows.add_row(str(workers) if same else f"{workers}: WRONG", *cells)
    single, *pair = [sum(_alone(bundle, count)) for count in (1, 2)]
    rows.add_row("no Dask: 1 process", "", f"{single:.2f}", "1.00", "", "")
    rows.add_row("no Dask: 2 processes", "", f"{pair[0]:.2f}", f"{pair[0] / single:.2f}", "", "")
    out.print(rows)


def latency(folder: Path, bundle: Path, out: Console) -> None:
    """One image at a time, spread over three workers: what Dask adds."""
    executor = load_executor(bundle, threads=1)
    (name,) = executor.manifest.inputs
    image = {name: np.zeros(executor.manifest.tensors[name].shape, np.float32)}
    own = statistics.median(_seconds(lambda: executor.run(image, again=True)) for _ in range(ALONE))
    executor.make_room()
    columns = ("workers", "s an image", "without Dask", "ms more a step", "steps", "tasks")
    rows = table("one image at a time, its steps spread over workers of 900 MB", *columns)
    for workers in (1, 2, 3):
        with farm(folder, workers, LARGE_BYTES) as made, closing(DaskEngine(bundle, made.url)) as engine:
            run_one(engine, image)
            seconds = statistics.median(_seconds(lambda: run_one(engine, image)) for _ in range(ALONE))
            steps = len(engine.manifest.steps)
            cells = (f"{seconds:.3f}", f"{own:.3f}", f"{(seconds - own) / steps * 1e3:.1f}", str(steps))
            rows.add_row(str(workers), *cells, str(len(engine.schedule(1).plan.stages)))
    out.print(rows)


def archive(folder: Path, bundle: Path, out: Console) -> None:
    """A thousand photographs by the command, as a user would."""
    pictures = sorted((ROOT.parent / "shared/data/images").glob("*.JPEG"))
    if not pictures:
        out.print("no photographs here: ../shared/data is absent")
        return
    many = folder / "photographs"
    many.mkdir()
    for number in range(PHOTOGRAPHS):
        (many / f"{number:04d}.jpeg").symlink_to(pictures[number % len(pictures)])
    columns = ("workers", "s", "images a s", "lines", "peak MB: workers", "scheduler")
    rows = table(f"{PHOTOGRAPHS:,} photographs by hyps-run --output", *columns)
    with farm(folder, 2, SMALL_BYTES) as made:
        output = folder / "results.jsonl"
        command: list[str | Path] = [BIN / "hyps-run", bundle, many, "--engine", made.url, "--output", output]
        seconds = _seconds(lambda: subprocess.run(command, check=True))
        peaks = " ".join(f"{made.resident_bytes(name) / 1e6:.0f}" for name in ("w0", "w1"))
        lines = len(set(output.read_text().splitlines()))
        scheduler = f"{made.resident_bytes('scheduler') / 1e6:.0f}"
        rows.add_row("2 of 300 MB", f"{seconds:.0f}", f"{PHOTOGRAPHS / seconds:.2f}", str(lines), peaks, scheduler)
    out.print(rows)


def _alone(bundle: Path, count: int) -> list[float]:
    """Return the images a second of ``count`` processes at the same time."""
    command = [sys.executable, "-c", _ALONE, str(bundle)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in processes]


def _bits(outputs: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in outputs.items()}


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
