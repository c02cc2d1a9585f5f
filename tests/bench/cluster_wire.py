"""VGG16 on one to six workers: the local run's bits, bytes on the workers' links, and time from worker to worker."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import cluster_on, mosquitto
from tests.bench.wire import crossings, placed, traced
from tests.cluster_network import Traffic

IMAGES = 5
_WAIT_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """One number of workers. Bytes are an image's; boundaries are (bytes, median seconds). Without a network: no traffic."""

    workers: int
    same: bool
    tensor_bytes: int
    wire_bytes: float | None
    stream_bytes: float | None
    boundaries: Sequence[tuple[int, float]]


def wired(folder: Path, bundle: Path, counts: Sequence[int]) -> Iterator[Wired]:
    """Images one after the other, each cluster made anew."""
    generator = np.random.default_rng(7)
    executor = load_executor(bundle)
    (name,) = executor.manifest.inputs
    shape = executor.manifest.tensors[name].shape
    images = [{name: generator.standard_normal(shape, dtype=np.float32)} for _ in range(IMAGES)]
    expected = [{key: array.tobytes() for key, array in executor.run(image).items()} for image in images]
    executor.make_room()
    for count in counts:
        place = folder / f"wire-{count}"
        place.mkdir()
        workers = [f"w{number}" for number in range(count)]
        with ExitStack() as stack:
            devices, links = cluster_on(stack, place, bundle, mosquitto(), workers, shaped=False)
            devices.start_hub()
            devices.start_manager("--workers", str(count))
            for worker in workers:
                devices.start_worker(worker, memory="900MB")
            devices.wait_for_sub_bundles(workers=count)
            shares = placed(executor.manifest, devices.log("manager"))
            engine = stack.enter_context(closing(devices.engine()))
            run_one(engine, images[0])
            same, found, totals = True, [], Traffic(sent_bytes=0, received_bytes=0, packets=0)
            if links:
                links.shape()
            for image, right in zip(images, expected, strict=True):
                before = {worker: links.traffic(worker) for worker in workers} if links else {}
                with ExitStack() as watching:
                    traces = watching.enter_context(traced(links, workers)) if links else {}
                    outputs = run_one(engine, image)
                same = same and {key: array.tobytes() for key, array in outputs.items()} == right
                if links:
                    found.append(crossings(shares, traces))
                    for worker in workers:
                        totals += links.traffic(worker) - before[worker]
        shutil.rmtree(place)
        yield Wired(
            workers=count,
            same=same,
            tensor_bytes=sum(share.input_bytes + share.output_bytes for share in shares),
            wire_bytes=totals.wire_bytes / IMAGES if links else None,
            stream_bytes=totals.stream_bytes / IMAGES if links else None,
            boundaries=[
                (rows[0][0], statistics.median(seconds for _, seconds in rows)) for rows in zip(*found, strict=True)
            ],
        )
