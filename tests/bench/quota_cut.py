"""Processor quotas that change under a stream: one that is cut to a third, or all that jitter by a fifth.

    python -m tests.bench.quota_cut [--seconds 90] [--quota 0.2] [--placement pipeline] [--model resnet50]
    python -m tests.bench.quota_cut --jitter 600

A network on three real workers, each in a control group with a quota (cgroup v1, and the right to make groups). After a cut,
the best throughput is that of a cluster that starts with the new quotas and moves its steps, too, measured in the same run.
With ``--jitter``, every quota is drawn anew every few seconds; steps may move once at most.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hyps.models.catalogue import build
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import compile_bundle, mosquitto
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings

_GROUPS, _PERIOD_US = Path("/sys/fs/cgroup/cpu"), 20_000
_WORKERS, _CUT = ("w0", "w1", "w2"), "w1"
_PICTURES = 10
#: The networks, with the memory that they are compiled for: computing takes most of the time of the first alone.
_MEMORY = {"resnet50": "110MB", "squeezenet": "90MB"}
#: Seconds of a stream before the cut, over which a rate is measured, and of the cluster that starts with the new quotas.
_BEFORE_S, _RATE_S, _ANEW_S = 30.0, 10.0, 60.0
#: Quotas jitter by this part of themselves, and stay so long.
_JITTER, _JITTER_S = 0.2, 7.0


@contextmanager
def _quotas(names: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    groups = {name: _GROUPS / f"hyps-{os.getpid()}-{name}" for name in names}
    try:
        for group in groups.values():
            group.mkdir()
        yield groups
    except OSError as error:
        sys.exit(f"no quotas here: control groups (cgroup v1) cannot be made: {error}")
    finally:
        for group in groups.values():
            with suppress(OSError):
                group.rmdir()


def _set_quota(group: Path, share: float) -> None:
    (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
    (group / "cpu.cfs_quota_us").write_text(str(max(1000, round(share * _PERIOD_US))))


def _cut(seconds: float, share: float) -> Callable[[Mapping[str, Path]], None]:
    """Return what cuts a quota after a while, and then waits."""

    def act(groups: Mapping[str, Path]) -> None:
        time.sleep(_BEFORE_S)
        _set_quota(groups[_CUT], share)
        time.sleep(seconds)

    return act


def _jitter(seconds: float, share: float) -> Callable[[Mapping[str, Path]], None]:
    """Return what draws quotas for so long."""

    def act(groups: Mapping[str, Path]) -> None:
        random_ = random.Random(0)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for group in groups.values():
                _set_quota(group, share * random_.uniform(1 - _JITTER, 1 + _JITTER))
            time.sleep(_JITTER_S)

    return act


def _stream(
    folder: Path,
    bundle: Path,
    shares: Mapping[str, float],
    act: Callable[[Mapping[str, Path]], None],
    options: Sequence[str],
) -> tuple[list[float], str]:
    """Stream until ``act`` returns; return when each image was answered, from the start, and the manager's log.

    Exits if an image is answered wrongly or out of order.
    """
    generator = np.random.default_rng(0)
    executor = load_executor(bundle)
    (name,) = executor.manifest.inputs
    shape = executor.manifest.tensors[name].shape
    pictures = [{name: generator.standard_normal(shape, dtype=np.float32)} for _ in range(_PICTURES)]
    expected = [_bits(executor.run(picture)) for picture in pictures]
    folder.mkdir()
    times: list[float] = []
    over = threading.Event()
    with ExitStack() as stack:
        groups = stack.enter_context(_quotas(_WORKERS))
        devices = Devices(stack, folder, bundle, BIN, mosquitto(), Settings(counts_messages=True))
        devices.start_hub()
        devices.start_manager("--workers", str(len(_WORKERS)), *options)
        for name in _WORKERS:
            devices.start_worker(name)
            _set_quota(groups[name], shares[name])
            (groups[name] / "cgroup.procs").write_text(str(devices.processes[name].pid))
        devices.wait_for_sub_bundles(workers=len(_WORKERS))
        began = time.monotonic()

        def script() -> None:
            act(groups)
            over.set()

        def endless() -> Iterator[Mapping[str, Any]]:
            number = 0
            while not over.is_set():
                yield pictures[number % len(pictures)]
                number += 1

        threading.Thread(target=script, daemon=True).start()
        with closing(devices.engine()) as engine:
            for number, done in enumerate(engine.run(in_memory(endless()))):
                if done.number != number or done.error or _bits(done.outputs or {}) != expected[number % _PICTURES]:
                    sys.exit(f"image {number} is answered wrongly or out of order")
                times.append(time.monotonic() - began)
        return times, devices.log("manager")


def _bits(outputs: Mapping[str, Any]) -> bytes:
    return b"".join(values.tobytes() for values in outputs.values())


def _rate(times: Sequence[float], until: float) -> float:
    return sum(1 for each in times if until - _RATE_S < each <= until) / _RATE_S


def _report_cut(folder: Path, bundle: Path, options: argparse.Namespace, given: Sequence[str]) -> None:
    even = dict.fromkeys(_WORKERS, options.quota)
    cut = options.quota / 3
    from_start, log = _stream(folder / "cut", bundle, even, _cut(options.seconds, cut), given)
    times = [each - _BEFORE_S for each in from_start]
    anew, _ = _stream(folder / "anew", bundle, even | {_CUT: cut}, lambda _: time.sleep(_ANEW_S), given)
    end = _rate(times, options.seconds - 1)
    best = max(end, _rate(anew, _ANEW_S - 1))
    _say_moves(log)
    points = [at for at in np.arange(_RATE_S, options.seconds, 0.5) if _rate(times, at) >= 0.9 * best]
    print(
        f"{options.model}: before {_rate(times, 0):.2f} images a second; in the {_RATE_S:.0f} s after the cut "
        f"{_rate(times, _RATE_S):.2f}; at the end {end:.2f}; a cluster that starts with the new quotas "
        f"{_rate(anew, _ANEW_S - 1):.2f}; 90 % of the better "
        f"{f'over the {_RATE_S:.0f} s that end {points[0]:.1f} s after the cut' if points else 'never'}"
    )


def _report_jitter(folder: Path, bundle: Path, options: argparse.Namespace, given: Sequence[str]) -> None:
    even = dict.fromkeys(_WORKERS, options.quota)
    times, log = _stream(folder / "jitter", bundle, even, _jitter(options.jitter, options.quota), given)
    _say_moves(log)
    moves = log.count(": steps move\n")
    print(
        f"{options.model}: quotas that jitter by {_JITTER:.0%} for {options.jitter:.0f} s: {len(times):,} images, "
        f"{len(times) / options.jitter:.2f} a second, all right and in order; moves: {moves}"
    )
    if moves > 1:
        sys.exit(1)


def _say_moves(log: str) -> None:
    print("\n".join(line for line in log.splitlines() if line.startswith(("rebalance", "new jobs", "the move"))))


def main() -> None:
    """One run, with what the manager said."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quota_cut")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--jitter", type=float, metavar="SECONDS", help="let quotas jitter for so long, instead of a cut")
    parser.add_argument("--quota", type=float, default=0.2, help="each worker's share of a processor")
    parser.add_argument("--folder", type=Path, help="work here, and leave the logs")
    parser.add_argument("--model", choices=_MEMORY, default="resnet50")
    parser.add_argument("--placement", choices=("pipeline", "best"), default="pipeline")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    given = ("--placement", options.placement)
    with tempfile.TemporaryDirectory(prefix="hyps-quota-") as name:
        folder = options.folder or Path(name)
        model = folder / f"{options.model}.onnx"
        build(options.model, model)
        bundle = compile_bundle(model, folder / options.model, _MEMORY[options.model])
        (_report_cut if options.jitter is None else _report_jitter)(folder, bundle, options, given)


if __name__ == "__main__":
    main()
