"""Make the benchmarks' folder: VGG16, and bundles compiled by the command as a user would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyps.models.catalogue import build

HYPSC = Path(sys.executable).with_name("hypsc")
#: Runs of each contender, taken in turn.
ROUNDS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder, how many rounds contenders run in turn, and where to say what is being done."""

    folder: Path
    rounds: int = ROUNDS
    say: Callable[[str], None] = lambda text: None

    def inside(self) -> Path:
        """VGG16, weights and all in one file."""
        return self._built(self.folder / "inside.onnx", external_data=False)

    def beside(self) -> Path:
        """VGG16 with its weights in a file next to it."""
        return self._built(self.folder / "beside.onnx", external_data=True)

    def image(self) -> Path:
        """An input of VGG16: float32 (1, 3, 224, 224), seeded."""
        path = self.folder / "image.npy"
        if not path.exists():
            np.save(path, np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32))
        return path

    def bundle(self, budget_mb: int) -> Path:
        """VGG16 for one thread and this budget."""
        path = self.folder / f"vgg16-{budget_mb}"
        if not path.exists():
            compile_bundle(self.beside(), path, f"{budget_mb}MB")
        return path

    def _built(self, path: Path, *, external_data: bool) -> Path:
        if not path.exists():
            self.say(f"building {path.stem}")
            build("vgg16", path, external_data=external_data)
        return path


def compile_bundle(model: Path, bundle: Path, memory: str, threads: int = 1) -> dict[str, Any]:
    """Compile with the command, as a user would; its summary."""
    shutil.rmtree(bundle, ignore_errors=True)
    summary: dict[str, Any] = json.loads(output(compile_command(model, bundle, memory, threads)))
    return summary


def compile_command(model: Path, bundle: Path, memory: str, threads: int = 1) -> list[str]:
    """What a user types, and ``--json``."""
    return [str(HYPSC), "compile", str(model), "--memory", memory, "--threads", str(threads), "-o", str(bundle), "--json"]


def output(command: list[str]) -> str:
    """What a command printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
