"""Six budgets for a model, and what a run under each of them needed; shared by regression and benchmark."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyps.compiler.validate import random_inputs
from hyps.runtime.bundle.integrity import read_manifest
from tests.repository import BIN

#: Between the smallest budget that works and what the whole model needs.
SHARES = (0.0, 0.15, 0.35, 0.6, 0.85, 1.0)
#: Models with dynamic inputs, fixed to what their makers use.
INPUT_SHAPES = {"derived_cifar_resnet20": "input:1,3,32,32", "super_resolution_10": "input:1,1,224,224"}


#: Networks whose arena is predicted too small at one of their budgets: onnxruntime runs their branches in another order.
OUTGROWING = {"unet", "nanodet_m_320"}
OUTGREW = "hyps-run: activations did not fit into the planned arena: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Bytes: the budget, the predicted process peak, and the one measured (VmHWM)."""

    budget_bytes: int
    partitions: int
    predicted_bytes: int
    measured_bytes: int

    @property
    def excess(self) -> float:
        """By how much the prediction is too high, as a share of what was measured."""
        return self.predicted_bytes / self.measured_bytes - 1


def compiled(model: Path, bundle: Path, budget_bytes: int, *options: str) -> dict[str, Any] | None:
    """The summary of ``hypsc compile``; None where the model or the budget is refused."""
    done = _compile(model, bundle, budget_bytes, *options)
    assert done.returncode in (0, 2), done.stderr
    return json.loads(done.stdout) if done.returncode == 0 else None


def _compile(model: Path, bundle: Path, budget_bytes: int, *options: str) -> subprocess.CompletedProcess[str]:
    shape = INPUT_SHAPES.get(model.stem)
    command = ["compile", model, "--memory", f"{budget_bytes / 1e6}MB", "-o", bundle, "--force", "--json", *options]
    command += ["--input-shape", shape] if shape else []
    return subprocess.run([BIN / "hypsc", *map(str, command)], capture_output=True, text=True, check=False)


def smallest_bytes(model: Path, bundle: Path, *options: str) -> int:
    """The smallest budget that works, as the refusal of a smaller one tells."""
    done = _compile(model, bundle, 10**6, *options)
    assert done.returncode == 2
    return round(float(done.stderr.strip().rsplit("is ", 1)[1].removesuffix(" MB")) * 1e6)


def inputs(bundle: Path, folder: Path, count: int) -> list[Path]:
    """Seeded inputs for a bundle, as files."""
    paths = [folder / f"input{number}.npz" for number in range(count)]
    for path, sample in zip(paths, random_inputs(read_manifest(bundle), count), strict=True):
        np.savez(path, allow_pickle=False, **sample)
    return paths


def measured_bytes(bundle: Path, paths: list[Path], *options: str, may_outgrow: bool = False) -> int:
    """The peak of ``hyps-run`` over these inputs, which it says nothing about; or that they outgrew the arena."""
    done = subprocess.run(
        [BIN / "hyps-run", bundle, *paths, "--json", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or (may_outgrow and done.stderr.startswith(OUTGREW)), done.stderr
    return int(json.loads(done.stdout.splitlines()[-1])["peak_rss_bytes"])


def peaks(model: Path, folder: Path) -> Iterator[Peaks]:
    """A model under each of six budgets, with two inputs one after the other; nothing where it is refused."""
    bundle = folder / "bundle"
    whole = compiled(model, bundle, 10**11)
    if whole is None:
        return
    smallest, most = smallest_bytes(model, bundle), whole["peak_bytes"]
    for budget in sorted({smallest + int((most - smallest) * share) for share in SHARES}):
        summary = compiled(model, bundle, budget)
        assert summary is not None
        yield Peaks(
            budget_bytes=budget,
            partitions=len(summary["partitions"]),
            predicted_bytes=summary["peak_bytes"],
            measured_bytes=measured_bytes(bundle, inputs(bundle, folder, 2), may_outgrow=model.stem in OUTGROWING),
        )
