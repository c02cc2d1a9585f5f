"""Slow storage: large networks with attached exits, whose inferences end at each of them.

Before each inference the kernel forgets the bundle's files, as a device would that has no more memory than the budget. What
stays mapped stays: pinned weights, and those read ahead.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyps.compiler.exits.policy_files import threshold_file
from hyps.compiler.exits.thresholds import NEVER
from hyps.models.catalogue import build
from hyps.runtime.bundle.exits import step_reach
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.exits.policy_header import bundle_exits
from tests.bench.contender import served, worker
from tests.bench.exits_data import training_images
from tests.bench.exits_results import StorageRow, StorageRun
from tests.bench.place import HYPSC, Place, compile_command
from tests.bench.readings import Reading
from tests.bench.slow import READ_BYTES_PER_S, slow_target
from tests.bench.throttled import forget, remember, throttled

#: Images that the heads are fitted to: accuracy does not matter here.
IMAGES = 120
#: Inferences that end at each exit, after the first.
RUNS = 3
#: What a process may take beyond its budget, cached files included, before the kernel drops pages.
_MARGIN_BYTES = 40_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network, the operators that get exits, the budget in MB, and the exit rates to compile with."""

    network: str
    after: str
    budget_mb: int
    rates: tuple[float, ...] = ()


#: VGG16 in a quarter of its weights; a quarter of ResNet50's is less than Python takes.
CASES = (
    Case(network="vgg16", after="pool3,pool5,relu6", budget_mb=138),
    Case(network="vgg16", after="pool3,pool5,relu6", budget_mb=138, rates=(0.2, 0.3, 0.4)),
    Case(network="resnet50", after="layer2.3.relu3,layer3.5.relu3", budget_mb=80),
)


def storage_runs(place: Place) -> tuple[StorageRun, ...]:
    """Return what each case reads and takes for an inference that ends at each exit, and for the whole schedule."""
    images, classes = training_images(slice(IMAGES))
    np.savez(place.folder / "images.npz", x=images, y=classes)
    return tuple(_run(place, case) for case in CASES)


def _run(place: Place, case: Case) -> StorageRun:
    model, attach_s, attach_peak_bytes = _attached(place, case)
    bundle = _compiled(place, case, model)
    manifest = read_manifest(bundle)
    rows, peak_bytes = _measured(place, case, bundle, manifest)
    reach = step_reach(manifest.exits, len(manifest.steps))
    return StorageRun(
        network=case.network,
        weight_bytes=sum(step.weights_file_bytes for step in manifest.steps),
        budget_bytes=case.budget_mb * 1_000_000,
        read_bytes_per_s=READ_BYTES_PER_S,
        rates=case.rates,
        expected_bytes=sum(part * streamed for part, streamed in zip(reach, _streamed(manifest), strict=True)),
        attach_s=attach_s,
        attach_peak_bytes=attach_peak_bytes,
        peak_bytes=peak_bytes,
        rows=rows,
    )


def _attached(place: Place, case: Case) -> tuple[Path, float, int]:
    """Return the network with exits, and the seconds and peak memory of ``hypsc exits attach``; zeros if it was there."""
    plain, model = place.folder / f"{case.network}.onnx", place.folder / f"{case.network}-exits.onnx"
    if model.exists():
        return model, 0.0, 0
    build(case.network, plain, external_data=True)
    place.say(f"{case.network}: attaching exits")
    command = [str(HYPSC), "exits", "attach", str(plain), "--after", case.after, "--preprocess", "imagenet", "--quiet"]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--data", str(place.folder / "images.npz"), "-o", str(model)]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"hypsc exits attach failed: {command}")
    return model, time.perf_counter() - began, 1024 * usage.ru_maxrss


def _compiled(place: Place, case: Case, model: Path) -> Path:
    """Compile for one thread and the budget, on a device with this storage and no more memory for cached files."""
    bundle = place.folder / f"{case.network}-{len(case.rates)}"
    memory = case.budget_mb * 1_000_000 + _MARGIN_BYTES
    target = slow_target(place.folder / f"{bundle.name}.toml", memory)
    rates = ["--exit-rates", ",".join(map(str, case.rates))] if case.rates else []
    command = compile_command(model, bundle, f"{case.budget_mb}MB")
    place.say(f"{bundle.name}: compiling")
    subprocess.run([*command, "--exits", "auto", *rates, "--target", str(target)], check=True, stdout=subprocess.DEVNULL)
    return bundle


def _streamed(manifest: Manifest) -> list[int]:
    """Return the bytes that each step reads in every inference."""
    return [step.streamed_bytes for step in manifest.steps]


def _measured(place: Place, case: Case, bundle: Path, manifest: Manifest) -> tuple[tuple[StorageRow, ...], int]:
    image = place.folder / "image.npy"
    if not image.exists():
        np.save(image, np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32))
    exits, streamed, rows, peak_bytes = bundle_exits(manifest), _streamed(manifest), [], 0
    memory, arguments = case.budget_mb * 1_000_000 + _MARGIN_BYTES, ["exits", str(bundle), str(image), "1"]
    for number, record in enumerate(manifest.exits):
        is_last = number == len(manifest.exits) - 1
        thresholds = tuple(0.0 if each == number else NEVER for each in range(len(manifest.exits) - 1))
        policy = place.folder / "policy.json"
        policy.write_bytes(threshold_file(exits, thresholds))
        place.say(f"{bundle.name}: {record.output}")
        with throttled(bundle, read_bytes_per_s=READ_BYTES_PER_S, memory_bytes=memory) as enter:
            readings = _readings([*arguments, str(policy)], bundle, enter)
        remember(bundle)
        cached = served([*arguments, str(policy)], RUNS + 1).runs[1:]
        peak_bytes = max(peak_bytes, *(each.peak_bytes for each in readings))
        rows.append(
            StorageRow(
                exit="whole schedule" if is_last else record.output,
                planned_bytes=sum(streamed[: record.after_step + 1]),
                storage_bytes=statistics.median(each.storage_bytes for each in readings[1:]),
                seconds=statistics.median(each.seconds for each in readings[1:]),
                computing_s=statistics.median(each.seconds for each in cached),
            )
        )
    return tuple(rows), peak_bytes


def _readings(arguments: list[str], bundle: Path, enter: list[str]) -> list[Reading]:
    """Return the first inference, which pins weights, and `RUNS` more."""
    forget(bundle)
    with worker(arguments, enter) as each:
        each.opened()
        readings = []
        for _ in range(RUNS + 1):
            readings.append(each.run())
            forget(bundle)
        return readings
