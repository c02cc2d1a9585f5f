"""One worker's processor quota is cut to a third under a stream: how soon the throughput is that of the new speeds.

    python -m tests.bench.quota_cut [--seconds 90] [--quota 0.2] [--placement pipeline] [--model resnet50]

A network on three real workers, each in a control group with a quota (cgroup v1, and the right to make groups). The best
throughput is that of a cluster that starts with the new quotas and moves its steps, too, measured in the same run.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hyps.models.catalogue import build
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.executor import load_executor
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


def _stream(
    folder: Path, bundle: Path, shares: Mapping[str, float], seconds: float, cut: float | None, options: Sequence[str]
) -> tuple[list[float], str]:
    """Return when each image was answered, from the cut or the start, and the manager's log. Checks bits and order."""
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
        devices = Devices(stack, folder, bundle, BIN, mosquitto(), Settings())
        devices.start_hub()
        devices.start_manager("--workers", str(len(_WORKERS)), *options)
        for name in _WORKERS:
            devices.start_worker(name)
            _set_quota(groups[name], shares[name])
            (groups[name] / "cgroup.procs").write_text(str(devices.processes[name].pid))
        devices.wait_for_sub_bundles(workers=len(_WORKERS))
        began = time.monotonic() + (_BEFORE_S if cut else 0)

        def script() -> None:
            if cut:
                time.sleep(_BEFORE_S)
                _set_quota(groups[_CUT], cut)
            time.sleep(seconds)
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


def main() -> None:
    """One run, with what the manager said."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quota_cut")
    parser.add_argument("--seconds", type=float, default=90.0)
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
        even = dict.fromkeys(_WORKERS, options.quota)
        cut = options.quota / 3
        times, log = _stream(folder / "cut", bundle, even, options.seconds, cut, given)
        anew, _ = _stream(folder / "anew", bundle, even | {_CUT: cut}, _ANEW_S, None, given)
    end = _rate(times, options.seconds - 1)
    best = max(end, _rate(anew, _ANEW_S - 1))
    print("\n".join(line for line in log.splitlines() if line.startswith(("rebalance", "new jobs", "the move"))))
    points = [at for at in np.arange(_RATE_S, options.seconds, 0.5) if _rate(times, at) >= 0.9 * best]
    print(
        f"{options.model}: before {_rate(times, 0):.2f} images a second; in the {_RATE_S:.0f} s after the cut "
        f"{_rate(times, _RATE_S):.2f}; at the end {end:.2f}; a cluster that starts with the new quotas "
        f"{_rate(anew, _ANEW_S - 1):.2f}; 90 % of the better "
        f"{f'over the {_RATE_S:.0f} s that end {points[0]:.1f} s after the cut' if points else 'never'}"
    )


if __name__ == "__main__":
    main()
