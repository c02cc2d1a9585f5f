"""What the runtime costs apart from any network: the peak memory of ``hyps-run`` on a bundle of next to nothing.

It is ``hyps-run`` itself that runs, in a process of its own, so that the figure is what a user's process will show.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from hyps.runtime.errors import DeviceError
from hyps.runtime.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    ModelRecord,
    OutputRecord,
    Preprocess,
    Step,
    TargetRecord,
    TensorRecord,
    encode,
)
from hyps.runtime.rates import GRAPHS

#: The photograph's width and height in pixels.
PHOTOGRAPH = (640, 480)
_SIDE = 224
_RUNS, _ENOUGH_S, _LIMIT_S = 3, 3.0, 120.0
_COMMAND = (sys.executable, "-P", "-c", "from hyps.runtime.cli import main; main()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Peak resident bytes (VmHWM) of a ``hyps-run`` on a tensor, and of one on a photograph, which is never less.

    The two may be the same: the peak is where the session is opened, and the libraries' pages that opening needs are more
    than those of the decoder, which were given back by then.
    """

    process_bytes: int
    process_images_bytes: int


def baseline(threads: int, budget_bytes: int) -> Baseline:
    """Run the tiny network on a tensor and on a photograph, with so many threads.

    Raises `DeviceError` where such a process fails.
    """
    with tempfile.TemporaryDirectory(prefix="hyps-calibrate-") as name:
        folder = Path(name)
        bundle, tensor, photograph = folder / "bundle", folder / "tensor.npy", folder / "photograph.jpg"
        write_bundle(bundle, threads, budget_bytes)
        np.save(tensor, np.zeros((1, 3, _SIDE, _SIDE), np.float32))
        write_photograph(photograph)
        plain, pictures = _peak_bytes(bundle, tensor), _peak_bytes(bundle, photograph)
    return Baseline(process_bytes=plain, process_images_bytes=max(plain, pictures))


def write_bundle(bundle: Path, threads: int, budget_bytes: int) -> None:
    """Write a bundle of one step, the graph ``tiny``, which takes pictures."""
    model = (GRAPHS / "tiny.onnx").read_bytes()
    digest, path = hashlib.sha256(model).hexdigest(), "partitions/00-tiny.onnx"
    step = Step(
        name="00-tiny",
        model=FileRecord(path=path, size_bytes=len(model), sha256=digest),
        weights=None,
        inputs=("image",),
        outputs=("scores",),
        live=("scores",),
        operators=("conv", "relu", "mean", "flatten", "gemm"),
        weight_bytes=0,
        activation_bytes=0,
        alone_bytes=budget_bytes,
        peak_bytes=budget_bytes,
        pinned_bytes=0,
        ahead_bytes=0,
        kept=False,
        reuse=True,
        reason="calibration",
    )
    manifest = Manifest(
        version=2,
        created_by="hyps-run calibrate",
        model=ModelRecord(name="tiny", sha256=digest, parameters=58, weight_bytes=232),
        target=TargetRecord(name="calibration", threads=threads),
        budget_bytes=budget_bytes,
        huge_pages=False,
        steady=False,
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
    (bundle / MANIFEST_NAME).write_bytes(encode(manifest))


def write_photograph(path: Path) -> None:
    """A JPEG with a photograph's amount of detail: smooth surfaces, edges and some grain."""
    from PIL import Image

    width, height = PHOTOGRAPH
    y, x = np.mgrid[:height, :width]
    grain = (x * 7919 + y * 104729) % 23
    bands = [128 + 90 * np.sin(x / (40 + 9 * band)) * np.cos(y / (31 + 7 * band)) + grain for band in range(3)]
    pixels = np.stack(bands, axis=-1) + 30 * ((x // 80 + y // 60) % 2)[..., None]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _peak_bytes(bundle: Path, tensor: Path) -> int:
    """The largest of some runs: how much of the libraries becomes resident differs a little from run to run."""
    peaks: list[int] = []
    started = time.perf_counter()
    while not peaks or (len(peaks) < _RUNS and time.perf_counter() - started < _ENOUGH_S):
        try:
            done = subprocess.run([*_COMMAND, bundle, tensor, "--json"], capture_output=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"hyps-run on the smallest bundle took over {_LIMIT_S:.0f} s: stop what else runs") from None
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
            raise DeviceError(f"hyps-run fails on the smallest bundle: {said}")
        peaks.append(msgspec.json.decode(done.stdout)["peak_rss_bytes"])
    return max(peaks)
