"""Measure the runtime's own memory, without any network: the peak of ``hyps-run`` on the smallest bundle.

``hyps-run`` itself runs, in a child process, so that the figure is the one that a user's process will show.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyps.runtime.bundle.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    ModelRecord,
    OutputRecord,
    Preprocess,
    SessionRecord,
    Step,
    TargetRecord,
    TensorRecord,
    encode_manifest,
)
from hyps.runtime.device.process_memory import FIRST_TO_GO
from hyps.runtime.errors import DeviceError

#: Files to measure with, from `hyps.models.calibration_graphs`.
FILES = Path(__file__).parent / "data"
PHOTOGRAPH = FILES / "photograph.jpg"
#: The photograph's width and height in pixels.
PHOTOGRAPH_SIZE = (640, 480)
_SIDE = 224
_RUNS, _ENOUGH_S, _LIMIT_S = 3, 3.0, 120.0
_COMMAND = (sys.executable, "-P", "-c", f"{FIRST_TO_GO}from hyps.runtime.cli.main import main; main()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The peak resident bytes (VmHWM) of ``hyps-run`` on a tensor, and on a photograph, which is never less.

    The two may be the same. The peak is reached when the session is opened: that needs more pages of the libraries than the
    decoder did, whose pages were given back by then.
    """

    process_bytes: int
    process_images_bytes: int


def baseline(threads: int, budget_bytes: int) -> Baseline:
    """Run the tiny network on a tensor and on a photograph. Raises `DeviceError` where a process fails."""
    import numpy as np

    with _smallest_bundle(threads, budget_bytes) as bundle:
        tensor = bundle.with_name("tensor.npy")
        np.save(tensor, np.zeros((1, 3, _SIDE, _SIDE), np.float32))
        on_tensor, on_photograph = _peak_bytes(bundle, tensor, _RUNS), _peak_bytes(bundle, PHOTOGRAPH, _RUNS)
    return Baseline(process_bytes=on_tensor, process_images_bytes=max(on_tensor, on_photograph))


def quick_baseline(threads: int, budget_bytes: int) -> int:
    """Return the peak bytes of one run on the photograph; import nothing large here. Raises `DeviceError`."""
    with _smallest_bundle(threads, budget_bytes) as bundle:
        return _peak_bytes(bundle, PHOTOGRAPH, 1)


@contextmanager
def _smallest_bundle(threads: int, budget_bytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hyps-calibrate-") as name:
        write_bundle(bundle := Path(name) / "bundle", threads, budget_bytes)
        yield bundle


def write_bundle(bundle: Path, threads: int, budget_bytes: int) -> None:
    """Write a bundle of one step, the graph ``tiny``, which takes pictures."""
    model = (FILES / "tiny.onnx").read_bytes()
    digest, path = hashlib.sha256(model).hexdigest(), "partitions/00-tiny.onnx"
    step = Step(
        name="00-tiny",
        model=FileRecord(path=path, size_bytes=len(model), sha256=digest),
        weights=None,
        inputs=("image",),
        outputs=("scores",),
        live=("scores",),
        operators=("conv", "relu", "mean", "flatten", "gemm"),
        multiply_adds=0,
        weight_bytes=0,
        activation_bytes=0,
        alone_bytes=budget_bytes,
        peak_bytes=budget_bytes,
        pinned_bytes=0,
        ahead_bytes=0,
        session=SessionRecord(stays_open=False, reuses_memory=True),
    )
    manifest = Manifest(
        version=3,
        created_by="hyps-run calibrate",
        model=ModelRecord(name="tiny", sha256=digest, parameters=58, weight_bytes=232),
        target=TargetRecord(name="calibration", threads=threads),
        budget_bytes=budget_bytes,
        huge_pages=False,
        exact=True,
        inputs=("image",),
        outputs=(OutputRecord(name="scores", probabilities=False),),
        tensors={
            "image": TensorRecord(dtype="float32", shape=(1, 3, _SIDE, _SIDE)),
            "scores": TensorRecord(dtype="float32", shape=(1, 2)),
        },
        steps=(step,),
        preprocess=Preprocess(size=(_SIDE, _SIDE), resize=256, scale=1 / 255),
    )
    (bundle / path).parent.mkdir(parents=True)
    (bundle / path).write_bytes(model)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(manifest))


def _peak_bytes(bundle: Path, source: Path, runs: int) -> int:
    """Return the largest peak of some runs: how much of the libraries becomes resident varies a little between runs.

    ``--save`` has numpy compute pictures, too: plans are for that, unless they are for onnxruntime's C interface.
    """
    command: list[str | Path] = [*_COMMAND, bundle, source, "--json", "--save", bundle.parent / "outputs.npz"]
    peaks: list[int] = []
    started = time.perf_counter()
    while not peaks or (len(peaks) < runs and time.perf_counter() - started < _ENOUGH_S):
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"hyps-run on the smallest bundle took over {_LIMIT_S:.0f} s", "stop other programs") from None
        if done.returncode == -signal.SIGKILL:
            raise DeviceError("hyps-run on the smallest bundle was killed, as when memory runs out")
        if done.returncode:
            reason = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
            raise DeviceError(f"hyps-run fails on the smallest bundle: {reason}")
        peaks.append(msgspec.json.decode(done.stdout)["peak_rss_bytes"])
    return max(peaks)
