"""Compare the order of plans by estimated time with their order by measured time: ``python -m tests.bench.plan_order``.

A hundred plans are drawn: networks, each at several budgets, with several ways to cut, and with and without an arena for
activations. Each is estimated for the target that ``hyps-run calibrate`` writes of this machine. Warm bundles of one network
then run in turn, so that a slow moment of the machine meets all of them.

Kendall's tau is the share of pairs that both orders agree on less the share that they do not. Pairs are of plans of one
network: nobody chooses between plans of two. Two plans may differ by less than the machine's noise. So a pair counts if one
of the two is faster in nearly every round; the others are left out, and their number is printed. A pair that counts and is
estimated alike is neither in order nor out of order; it lowers tau. Times are those of the clock, and those of the
processor. Only the latter tell something on a busy machine, but they count reading ahead that other cores do meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyps.compiler.validate import random_inputs
from hyps.models.catalogue import build
from hyps.models.writer import data_path
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.device.process_memory import restart_lean
from tests.bench.place import HYPSC

NETWORKS = (
    "mobilenetv2",
    "squeezenet",
    "resnet50",
    "googlenet",
    "alexnet",
    "vit_tiny",
    "lstm_tagger",
    "densenet121",
    "tiny_yolo",
    "cifar10_vgg",
)
#: The options of ``hypsc compile``: how to cut, and the highest tier.
WAYS = (("auto", "auto"), ("layers", "auto"), ("pooling", "auto"), ("auto", "lean"))
#: Budgets, as shares of the way from the smallest that works to the whole model's need.
SHARES = (0.0, 0.1, 0.3, 0.6, 1.0)
#: Budgets and ways are combined in this stride, so that the first few cover all of both.
STRIDE = 7
#: A pair of plans counts if one is faster in at least this share of the rounds.
DECIDED = 0.85
ROUNDS, PLANS = 9, 100
_HYPS_RUN = HYPSC.with_name("hyps-run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A plan that was drawn: its estimate, and its seconds of each round by the clock and by the processor."""

    network: str
    label: str
    estimated_s: float
    clock_s: Sequence[float]
    cpu_s: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Pairs of plans: those whose orders agree, those whose orders do not, and those that were left out.

    ``alike`` are pairs that are estimated alike and of which one is measured to be faster.
    """

    agreeing: int = 0
    opposed: int = 0
    alike: int = 0
    left_out: int = 0

    @property
    def counted(self) -> int:
        """The pairs that count."""
        return self.agreeing + self.opposed + self.alike

    @property
    def tau(self) -> float:
        """Kendall's tau over the pairs that count."""
        return (self.agreeing - self.opposed) / max(1, self.counted)

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            agreeing=self.agreeing + other.agreeing,
            opposed=self.opposed + other.opposed,
            alike=self.alike + other.alike,
            left_out=self.left_out + other.left_out,
        )

    def __str__(self) -> str:
        pairs = f"{self.counted} pairs of {self.counted + self.left_out}"
        return f"{self.tau:.2f} ({pairs}: {self.agreeing} in order, {self.opposed} not, {self.alike} estimated alike)"


def agreement(plans: Sequence[Drawn], measured: Callable[[Drawn], Sequence[float]]) -> Agreement:
    """Compare the order by estimate with that by what was ``measured``, pair by pair."""
    found = Agreement()
    for one, other in itertools.combinations(plans, 2):
        rounds = list(zip(measured(one), measured(other), strict=True))
        faster = sum(a < b for a, b in rounds) / len(rounds)
        if 1 - DECIDED < faster < DECIDED:
            found += Agreement(left_out=1)
        elif one.estimated_s == other.estimated_s:
            found += Agreement(alike=1)
        elif (one.estimated_s < other.estimated_s) == (faster >= DECIDED):
            found += Agreement(agreeing=1)
        else:
            found += Agreement(opposed=1)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plan_order", description=__doc__)
    parser.add_argument("--plans", type=int, default=PLANS, help="how many plans (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each, in turn (default: %(default)s)")
    parser.add_argument("--target", type=Path, help="a target file of this machine (default: it is calibrated)")
    parser.add_argument("--serve", nargs=2, metavar=("BUNDLE", "INPUTS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        _serve(Path(options.serve[0]), Path(options.serve[1]))
        return
    each = -(-options.plans // len(NETWORKS))
    drawn: list[Drawn] = []
    clock = cpu = Agreement()
    with tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch:
        folder = Path(scratch)
        target = options.target or _calibrated(folder / "here.toml")
        for network in NETWORKS:
            found = tuple(itertools.islice(_compiled(network, target, folder), min(each, options.plans - len(drawn))))
            plans = [*_measured(network, found, folder, options.rounds)]
            of_clock, of_cpu = agreement(plans, lambda plan: plan.clock_s), agreement(plans, lambda plan: plan.cpu_s)
            _print(network, plans, of_clock, of_cpu)
            drawn, clock, cpu = drawn + plans, clock + of_clock, cpu + of_cpu
            for path in folder.glob(f"{network}*"):
                subprocess.run(["rm", "-r", str(path)], check=True)
    print(f"all: {len(drawn)} plans; tau by the clock {clock}; by the processor {cpu}")


def _print(network: str, plans: Sequence[Drawn], clock: Agreement, cpu: Agreement) -> None:
    for plan in plans:
        print(
            f"  {plan.label:28} estimated {plan.estimated_s:8.4f} s, measured {statistics.median(plan.clock_s):8.4f} s, "
            f"of the processor {statistics.median(plan.cpu_s):8.4f} s"
        )
    print(f"{network}: {len(plans)} plans; tau by the clock {clock}; by the processor {cpu}", flush=True)


def _calibrated(path: Path) -> Path:
    subprocess.run([_HYPS_RUN, "calibrate", "-o", path, "--folder", path.parent], check=True, stdout=subprocess.DEVNULL)
    return path


def _compiled(network: str, target: Path, folder: Path) -> Iterator[tuple[str, float, Path]]:
    """Compile a network for each budget and each way to cut; yield label, estimate and bundle of plans that differ."""
    model = folder / f"{network}.onnx"
    build(network, model)
    whole = _compile(model, folder / f"{network}-whole", 10**10, ("auto", "auto"), target)
    assert whole is not None
    smallest, most = whole["smallest_budget_bytes"], whole["whole_peak_bytes"]
    known = set()
    combined = [*itertools.product(SHARES, WAYS)]
    for place in range(len(combined)):
        share, (split, tier) = combined[place * STRIDE % len(combined)]
        bundle = folder / f"{network}-{split}-{tier}-{share}"
        budget = smallest + int((most - smallest) * share)
        summary = _compile(model, bundle, budget, (split, tier), target)
        plan = json.dumps(summary["partitions"]) if summary else None
        if summary is None or plan in known:
            continue
        known.add(plan)
        yield f"{network} {split} {tier} {budget / 1e6:.1f} MB", summary["latency_s"], bundle
    data_path(model).unlink(missing_ok=True)


def _compile(model: Path, bundle: Path, budget_bytes: int, way: tuple[str, str], target: Path) -> dict[str, Any] | None:
    split, tier = way
    command = [HYPSC, "compile", model, "--target", target, "--memory", f"{budget_bytes / 1e6}MB", "--threads", "1"]
    done = subprocess.run(
        [*map(str, command), "--split", split, "--tier", tier, "-o", str(bundle), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def _measured(network: str, plans: Sequence[tuple[str, float, Path]], folder: Path, rounds: int) -> Iterator[Drawn]:
    """Run the bundles in turn, so often each."""
    if not plans:
        return
    inputs = folder / f"{network}-inputs.npz"
    (sample,) = random_inputs(read_manifest(plans[0][2]), 1)
    np.savez(inputs, allow_pickle=False, **sample)
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(bundle, inputs)) for _, _, bundle in plans]
        readings: list[list[tuple[float, float]]] = [[] for _ in plans]
        for turn in range(rounds + 1):
            for told, ask in zip(readings, workers, strict=True):
                reading = ask()
                if turn:  # the first fills caches
                    told.append(reading)
    for (label, estimated_s, _), told in zip(plans, readings, strict=True):
        clock, cpu = zip(*told, strict=True)
        yield Drawn(network=network, label=label, estimated_s=estimated_s, clock_s=clock, cpu_s=cpu)


@contextmanager
def _worker(bundle: Path, inputs: Path) -> Iterator[Callable[[], tuple[float, float]]]:
    """Start a process that has the bundle open; yield the function that runs it once."""
    command = [sys.executable, "-m", "tests.bench.plan_order", "--serve", str(bundle), str(inputs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ask() -> tuple[float, float]:
            stdin.write("run\n")
            stdin.flush()
            clock_s, cpu_s = map(float, stdout.readline().split())
            return clock_s, cpu_s

        try:
            yield ask
        finally:
            stdin.close()


def _serve(bundle: Path, inputs: Path) -> None:
    restart_lean(huge_pages=read_manifest(bundle).huge_pages)
    from hyps.runtime.execution.loading import load_executor

    executor = load_executor(bundle, threads=1)
    with np.load(inputs) as arrays:
        values = dict(arrays)
    for _ in sys.stdin:
        clock, cpu = time.perf_counter(), time.process_time()
        executor.run(values, again=True)
        print(time.perf_counter() - clock, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
