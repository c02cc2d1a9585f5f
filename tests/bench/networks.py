"""Networks of the kinds that run on small boards, in bundles at five budgets, against stock onnxruntime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.models.catalogue import NETWORKS, build
from hyps.models.writer import data_path
from tests.bench.contender import Contender, served, worker
from tests.bench.place import Place, compile_command
from tests.bench.readings import Compared, Comparison, Process
from tests.bench.summary import STOCK
from tests.bench.throttled import remember

COMPARED = (
    "vgg16", "resnet50", "mobilenetv2", "squeezenet", "googlenet", "vit_tiny", "lstm_tagger", "mobilenetv2_int8",
)  # fmt: skip
#: The last holds every one of the networks whole.
BUDGETS_MB = (72, 96, 128, 256, 2000)
#: The label of bundles that ``hyps-run`` runs on pictures by onnxruntime's C interface, tuned where that changes anything.
PICTURES = "pictures, C interface"
#: Processes of each contender that open and run once.
STARTS = 3
#: What a user types after ``hypsc compile`` has made a bundle, if anything: a command with the bundle and the new folder.
Tier = Callable[[Path, Path], Sequence[str | Path]]
_HYPS_RUN = Path(sys.executable).with_name("hyps-run")
TIERS: dict[str, Tier | None] = {
    "bundle": None,
    "tuned": lambda bundle, tuned: (_HYPS_RUN, "tune", bundle, "-o", tuned, "--quiet"),
}


def networks(place: Place) -> tuple[Comparison, ...]:
    """With one thread and with one on every core."""
    return tuple(
        compared(place, network, threads) for network in COMPARED for threads in sorted({1, min(2, os.cpu_count() or 1)})
    )


def compared(place: Place, network: str, threads: int, budgets_mb: Sequence[int] = BUDGETS_MB) -> Comparison:
    """Compare the bundles of one network with stock onnxruntime: starts of several processes, then runs in turn."""
    folder = place.folder / f"{network}-{threads}"
    folder.mkdir()
    model, values = folder / "model.onnx", folder / "values.npy"
    place.say(f"{network}, threads {threads}: compiling")
    build(network, model, external_data=True)
    np.save(values, _values(network))
    contenders = [Contender(label=STOCK, mode="default", path=model), *_bundles(model, folder, threads, budgets_mb)]
    orders = [contender.arguments(values, threads) for contender in contenders]
    remember(*(file for contender in contenders for file in contender.files()))
    starts: list[list[Process]] = [[] for _ in contenders]
    for number in range(STARTS):
        place.say(f"{network}, threads {threads}: start {number + 1} of {STARTS}")
        for started, order in zip(starts, orders, strict=True):
            started.append(served(order, 1))
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(order)) for order in orders]
        opened = [each.opened() for each in workers]
        runs = []
        for number in range(place.rounds):
            place.say(f"{network}, threads {threads}: round {number + 1} of {place.rounds}")
            runs.append([each.run() for each in workers])
    rows = zip(contenders, starts, opened, zip(*runs, strict=True), strict=True)
    found = tuple(
        Compared(
            label=contender.label,
            budget_bytes=contender.budget_bytes,
            starts=tuple(started),
            race=Process(opened=opening, runs=tuple(own)),
        )
        for contender, started, opening, own in rows
    )
    model_bytes = sum(path.stat().st_size for path in (model, data_path(model)) if path.exists())
    shutil.rmtree(folder)
    return Comparison(network=network, threads=threads, model_bytes=model_bytes, contenders=found)


def _bundles(model: Path, folder: Path, threads: int, budgets_mb: Sequence[int]) -> Iterator[Contender]:
    """Compile for every budget that the network fits in, and make the bundle of every tier from that."""
    yield from _picture_bundles(model, folder, threads, budgets_mb)
    for budget_mb in budgets_mb:
        bundle = folder / f"bundle-{budget_mb}"
        if not _made(compile_command(model, bundle, f"{budget_mb}MB", threads)):
            continue
        for tier, command in TIERS.items():
            made = folder / f"{tier}-{budget_mb}"
            if command is None or _made(command(bundle, made)):
                yield Contender(label=tier, mode="bundle", path=made, budget_bytes=budget_mb * 10**6)


def _picture_bundles(model: Path, folder: Path, threads: int, budgets_mb: Sequence[int]) -> Iterator[Contender]:
    """Compile for every budget, for pictures alone, and tune what can be tuned."""
    for budget_mb in budgets_mb:
        bundle, tuned = folder / f"pictures-{budget_mb}", folder / f"tuned-pictures-{budget_mb}"
        command = compile_command(model, bundle, f"{budget_mb}MB", threads)
        if not _made([*command, "--interface", "c", "--preprocess", "imagenet"]):
            continue  # its input is no picture, or the budget too small
        made = tuned if _made((_HYPS_RUN, "tune", bundle, "-o", tuned, "--quiet", "--memory", "1GB")) else bundle
        yield Contender(label=PICTURES, mode="picture", path=made, budget_bytes=budget_mb * 10**6)


def _made(command: Sequence[str | Path]) -> bool:
    """Run a command; return whether it did its work, or refused to: for example because the budget is too small."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 2):
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.returncode == 0


def _values(network: str) -> NDArray[Any]:
    """Return an input: seeded numbers, or for a network of tokens some of its first hundred."""
    described, random = NETWORKS[network], np.random.default_rng(0)
    if np.issubdtype(described.input_dtype, np.integer):
        return random.integers(0, 100, described.input_shape, dtype=described.input_dtype)
    return random.standard_normal(described.input_shape).astype(described.input_dtype)
