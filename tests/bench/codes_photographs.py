"""Measure whether a real classifier's first class stays the same on photographs, for all patterns of losses of its codes."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.codes.decoding import decode
from tests.bench.codes_results import PhotographRun
from tests.bench.photographs import CLASSIFIERS, PhotographClassifier, photographs
from tests.bench.place import Place
from tests.repository import BIN

Tensors = dict[str, NDArray[np.float32]]
#: What is lost: members of a code's group, by the code's name.
Losses = Mapping[str, tuple[int, ...]]


def photograph_runs(place: Place) -> tuple[PhotographRun, ...]:
    """Lose shards of each coded operator of the classifiers, and of all of them at once, in every pattern."""
    return tuple(_run(place, classifier, parity) for classifier in CLASSIFIERS for parity in (1, 2))


def _run(place: Place, classifier: PhotographClassifier, parity: int) -> PhotographRun:
    images, labels = photographs(classifier)
    folder = place.folder / f"photographs-{parity}"
    command: list[str | Path] = [BIN / "hypsc", "compile", classifier.path, "-o", folder, "--memory", "256MB"]
    subprocess.run([*command, "--tolerate", str(parity), "--threads", "1"], check=True, capture_output=True)
    bundle = _Bundle(folder)
    patterns = [*bundle.patterns()]
    right = changed = 0
    error = 0.0
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place.say(f"{classifier.name}, {parity} parity shards, photograph {number + 1} of {len(images)}")
        tensors = bundle.run({classifier.input: image[None]}, {}, 0)
        scores = tensors[classifier.output]
        right += int(scores.argmax() == label)
        for losses in patterns:
            found = bundle.run(tensors, losses, bundle.first(losses))[classifier.output]
            changed += int(found.argmax() != scores.argmax())
            error = max(error, float(np.abs(found - scores).max() / np.abs(scores).max()))
    shutil.rmtree(folder)
    return PhotographRun(
        network=classifier.name,
        parity=parity,
        codes=len(bundle.manifest.codes),
        patterns=len(patterns),
        images=len(images),
        right=right,
        changed=changed,
        error=error,
        bound=max(code.error_bound for code in bundle.manifest.codes),
    )


class _Bundle:
    """The sessions of a coded bundle's steps, parity steps included."""

    def __init__(self, folder: Path) -> None:
        self.manifest = read_manifest(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._sessions = [ort.InferenceSession(folder / step.model.path, options) for step in self.manifest.steps]
        self._ends = {code.name: max(self._places(code.tensors)) for code in self.manifest.codes}

    def patterns(self) -> Iterable[Losses]:
        """Yield every pattern of losses: of each code alone, and of all codes at once."""
        by_code = {code.name: [*_patterns(code)] for code in self.manifest.codes}
        for name, patterns in by_code.items():
            yield from ({name: lost} for lost in patterns)
        for number in range(max(map(len, by_code.values()))):
            yield {name: patterns[number % len(patterns)] for name, patterns in by_code.items()}

    def first(self, losses: Losses) -> int:
        """Return the first step that is not as it was before these losses."""
        return min(self._ends[name] for name in losses)

    def run(self, known: Tensors, losses: Losses, first: int) -> Tensors:
        """Return all tensors, computed from step ``first`` on; lost shards are decoded from the others."""
        tensors = {**known}
        for index, (step, session) in enumerate(zip(self.manifest.steps, self._sessions, strict=True)):
            if index > first or not losses:
                inputs = {name: tensors[name] for name in step.inputs}
                tensors.update(zip(step.outputs, session.run([*step.outputs], inputs), strict=True))
            for code in self.manifest.codes:
                if code.name in losses and self._ends[code.name] == index:
                    self._lose(code, tensors, losses[code.name])
        return tensors

    def _lose(self, code: CodeRecord, tensors: Tensors, lost: tuple[int, ...]) -> None:
        record = self.manifest.tensors[code.shards[0]]
        present = {number: tensors[name].tobytes() for number, name in enumerate(code.tensors) if number not in lost}
        wanted = [number for number in lost if number < len(code.shards)]
        for number, data in decode(code, record, present, wanted).items():
            tensors[code.shards[number]] = np.frombuffer(data, np.float32).reshape(record.shape)

    def _places(self, names: Iterable[str]) -> list[int]:
        wanted = {*names}
        return [index for index, step in enumerate(self.manifest.steps) if not wanted.isdisjoint(step.outputs)]


def _patterns(code: CodeRecord) -> Iterable[tuple[int, ...]]:
    """Yield which members may be lost together, at least one shard among them."""
    members = range(len(code.tensors))
    for size in range(1, len(code.parity) + 1):
        yield from (lost for lost in itertools.combinations(members, size) if min(lost) < len(code.shards))
