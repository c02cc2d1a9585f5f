"""``make bench``: what HyPS costs, beside what a user would pick instead; ratios within one run, for machines are noisy."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from hyps.models.catalogue import NETWORKS, build
from hyps.models.writer import data_path
from tests.bench import throttled
from tests.bench.contender import Contender, Measured, race, ratio
from tests.bench.heavy import build_heavy
from tests.bench.planning import timed, timed_tight
from tests.regression.budgets import peaks

BUDGETS_MB = (72, 96, 128, 256, 512)
#: What is compiled against cp.
BUDGET = "128MB"
ROUNDS = 12
BATCH = 64
HYPSC = Path(sys.executable).with_name("hypsc")

out = Console(width=110, highlight=False)


def main() -> None:
    """Run every benchmark in a temporary folder."""
    out.print(f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, 1 thread")
    with tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch:
        folder = Path(scratch)
        values = folder / "image.npy"
        np.save(values, np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32))
        build("vgg16", folder / "inside.onnx")
        build("vgg16", folder / "beside.onnx", external_data=True)
        dependencies()
        planning()
        tight_planning(folder)
        compilation(folder)
        for threads in sorted({1, os.cpu_count() or 1}):
            latency(folder, values, threads)
        slow_storage(folder, values)
        slow_batch(folder, values)
        prediction(folder)


def dependencies() -> None:
    """What each library that the runtime imports adds to the process: resident MB, one after the other."""
    table = _table("resident MB, import after import", "imported", "resident", "adds")
    code = (
        "import importlib, sys\nfrom hyps.runtime.process import memory, restart_lean\nrestart_lean()\n"
        "for name in sys.argv[1:]: importlib.import_module(name); print(memory().resident_bytes)"
    )
    names = [
        "hyps.runtime.process",
        "msgspec",
        "hyps.runtime.manifest",
        "numpy",
        "onnxruntime",
        "PIL.Image",
        "hyps.runtime.cli",
    ]
    before = 0
    for name, line in zip(names, _output([sys.executable, "-c", code, *names]).splitlines(), strict=True):
        label = "Python itself" if name == names[0] else name
        table.add_row(label, f"{int(line) / 1e6:.1f}", f"{(int(line) - before) / 1e6:.1f}")
        before = int(line)
    out.print(table)


def planning() -> None:
    """Planning synthetic networks of growing size: near-linear."""
    table = _table("planning, structure to checked plan", "network", "operators", "partitions", "seconds", "CPU s")
    for row in timed():
        cells = (f"{row.operators:,}", str(row.partitions), f"{row.wall_s:.2f}", f"{row.cpu_s:.2f}")
        table.add_row(row.network, *cells)
    out.print(table)


def tight_planning(folder: Path) -> None:
    """Planning every reference network for its smallest budget, which is tried longest."""
    table = _table("planning for the smallest budget", "network", "operators", "partitions", "seconds", "CPU s")
    for name in NETWORKS:
        model = folder / f"{name}.onnx"
        build(name, model)
        row = timed_tight(model)
        model.unlink()
        table.add_row(name, f"{row.operators:,}", str(row.partitions), f"{row.wall_s:.2f}", f"{row.cpu_s:.2f}")
    out.print(table)


def compilation(folder: Path) -> None:
    """Compiling against copying: seconds in turn, start-up apart, and the compiler's own peak memory.

    Start-up is compiling a small network. Each of the two begins by removing what the other wrote, and with a pause: memory
    that was free for some seconds the host of a virtual machine has taken back, and getting it again is most of the time of
    both. Without a pause both write to pages at hand.
    """
    columns = ("model", "MB", "pause s", "start-up s", "cp s", "compile s", "(compile - start-up) / cp", "peak MB")
    table = _table("compile against cp", *columns)
    small, written, bundle = folder / "small.onnx", folder / "copy", folder / "compiled"
    build("cifar10_vgg", small)
    build_heavy(folder / "heavy.onnx", sparseness=1)
    for name, pause_s, rounds in (("inside", 0, 5), ("inside", 4, 5), ("beside", 0, 5), ("beside", 4, 5), ("heavy", 4, 3)):
        model = folder / f"{name}.onnx"
        files = [path for path in (model, data_path(model)) if path.exists()]
        compile_bundle(model, written, BUDGET)
        turns = []
        for _ in range(rounds):
            _clear(bundle, written)
            startup_s = _seconds(_compile_command(small, bundle, BUDGET))
            written.mkdir()
            time.sleep(pause_s)
            cp_s = _seconds(["cp", *map(str, files), str(written)])
            _clear(bundle, written)
            time.sleep(pause_s)
            turns.append((startup_s, cp_s, _seconds(_compile_command(model, written, BUDGET))))
        excess = statistics.median((compile_s - startup_s) / cp_s for startup_s, cp_s, compile_s in turns)
        medians = (statistics.median(column) for column in zip(*turns, strict=True))
        peak = compiler_peak_bytes(model, written)
        cells = (str(pause_s), *(f"{seconds:.2f}" for seconds in medians), f"{excess:.2f}", f"{peak / 1e6:.1f}")
        table.add_row(name, f"{sum(path.stat().st_size for path in files) / 1e6:.0f}", *cells)
    _clear(bundle, written, data_path(folder / "heavy.onnx"))
    out.print(table)


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
    return time.perf_counter() - started


def latency(folder: Path, values: Path, threads: int) -> None:
    """VGG16 whole and in bundles: memory at the peak, and time in turn."""
    contenders = [
        Contender(label="whole, a bundle's session options", mode="lean", path=folder / "beside.onnx"),
        Contender(label="whole, mapped, no prepacking", mode="mapped", path=folder / "beside.onnx"),
        Contender(label="whole, external data, default", mode="default", path=folder / "beside.onnx"),
        Contender(label="whole, one file, default", mode="default", path=folder / "inside.onnx"),
    ]
    for budget in BUDGETS_MB:
        bundle = folder / (f"vgg16-{budget}" if threads == 1 else f"vgg16-{budget}-{threads}")
        compile_bundle(folder / "beside.onnx", bundle, f"{budget}MB", threads)
        contenders.append(Contender(label=f"bundle, budget {budget} MB", mode="bundle", path=bundle))
    measured = race(contenders, values, threads=threads, rounds=ROUNDS)
    columns = ("VGG16", "peak MB", "anonymous", "file", "open s", "first s", "warm s", "ratio", "to mapped")
    said = f"{threads} threads; warm" if threads > 1 else "warm"
    table = _table(f"{said}: median of {ROUNDS - 1}, all in turn; ratio to the first row, and to the second", *columns)
    for row in measured:
        ratios = (f"{ratio(row, measured[0]):.2f}", f"{ratio(row, measured[1]):.2f}")
        table.add_row(row.contender.label, *_memory_cells(row), *_time_cells(row), *ratios)
    out.print(table)


def slow_storage(folder: Path, values: Path) -> None:
    """VGG16 where storage is slow and memory small: what is read, and how long that takes."""
    contenders = {"whole, a bundle's session options": ["lean", str(folder / "beside.onnx")]}
    contenders |= {f"bundle, budget {budget} MB": ["bundle", str(folder / f"vgg16-{budget}")] for budget in (128, 256)}
    rate, memory = throttled.READ_BYTES_PER_S, throttled.MEMORY_BYTES
    title = f"storage of {rate / 1e6:.0f} MB/s, {memory / 1e6:.0f} MB for the process and its cached files; median of 3"
    table = _table(title, "VGG16", "peak MB", "read MB", "s", "s / (read / rate)", "faster than whole")
    whole = 0.0
    try:
        for row in throttled.race({label: [*args, str(values), "1"] for label, args in contenders.items()}, folder):
            whole = whole or row.seconds
            cells = (row.peak_bytes / 1e6, row.read_bytes / 1e6, row.seconds)
            shares = (row.seconds / (row.read_bytes / rate), whole / row.seconds)
            table.add_row(row.label, *(f"{cell:.1f}" for cell in cells), *(f"{share:.2f}" for share in shares))
    except OSError as error:
        out.print(f"no slow storage here, as control groups (cgroup v1) cannot be made: {error}")
    else:
        out.print(table)


def slow_batch(folder: Path, values: Path) -> None:
    """A batch on slow storage: the weights are read once for all, beside computing."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for number in range(BATCH):
        shutil.copy(values, inputs / f"{number:02}.npy")
    columns = ("VGG16", "images", "peak MB", "read MB an image", "s an image", "s / computing alone")
    rate = throttled.BATCH_READ_BYTES_PER_S / 1e6
    table = _table(f"storage of {rate:.0f} MB/s, the same memory, one batch by hyps-run, start-up included", *columns)
    try:
        row = throttled.batch(folder / "vgg16-128", inputs)
    except OSError:
        return  # said above
    shares = (row.read_bytes / 1e6 / row.images, row.seconds / row.images, row.seconds / row.compute_s)
    cells = (str(row.images), f"{row.peak_bytes / 1e6:.1f}", *(f"{share:.2f}" for share in shares))
    table.add_row("bundle, budget 128 MB", *cells)
    out.print(table)


def prediction(folder: Path) -> None:
    """Predicted against measured peak for every seeded reference network, at six budgets each."""
    table = _table("peak memory, MB", "network", "budget", "partitions", "predicted", "measured", "excess %")
    excesses = []
    for name in (network.name for network in NETWORKS.values() if not network.trained):
        model = folder / f"{name}.onnx"
        build(name, model)
        for each in peaks(model, folder):
            excesses.append(100 * each.excess)
            cells = (each.budget_bytes, each.predicted_bytes, each.measured_bytes)
            budget, predicted, measured = (f"{cell / 1e6:.1f}" for cell in cells)
            table.add_row(name, budget, str(each.partitions), predicted, measured, f"{100 * each.excess:.1f}")
        model.unlink()
    out.print(table)
    out.print(f"median excess {statistics.median(excesses):.1f} %, least {min(excesses):.1f} %")


def compile_bundle(model: Path, bundle: Path, memory: str, threads: int = 1) -> dict[str, Any]:
    """Compile with the command, as a user would; its summary."""
    shutil.rmtree(bundle, ignore_errors=True)
    summary: dict[str, Any] = json.loads(_output(_compile_command(model, bundle, memory, threads)))
    return summary


def compiler_peak_bytes(model: Path, bundle: Path) -> int:
    """The peak resident memory of ``hypsc compile``."""
    shutil.rmtree(bundle, ignore_errors=True)
    command = [sys.executable, "-m", "tests.bench.peak", *_compile_command(model, bundle, BUDGET)]
    return int(_output(command).splitlines()[-1])


def _compile_command(model: Path, bundle: Path, memory: str, threads: int = 1) -> list[str]:
    return [str(HYPSC), "compile", str(model), "--memory", memory, "--threads", str(threads), "-o", str(bundle), "--json"]


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for column in columns:
        table.add_column(column, justify="left" if column is columns[0] else "right")
    return table


def _memory_cells(row: Measured) -> Iterable[str]:
    return (f"{nbytes / 1e6:.1f}" for nbytes in (row.peak_bytes, row.anonymous_bytes, row.file_bytes))


def _time_cells(row: Measured) -> Iterable[str]:
    return (f"{seconds:.3f}" for seconds in (row.load_s, row.first_s, row.warm_s))


if __name__ == "__main__":
    main()
