"""Keep recorded exits: what a network answers at every exit for many labelled inputs (Seifeddine, algorithm 2).

The file is a .npz of arrays of numbers and text, without pickled objects.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.errors import OptionError

#: The most bytes of a file's arrays.
_FILE_BYTES = 4 << 30
_KINDS = {"probabilities": "f", "labels": "iu", "names": "U", "multiply_adds": "iu", "live_bytes": "iu", "model": "U"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedExits:
    """The answers of N inputs at E exits, in order of depth; the last is the network's own.

    ``probabilities`` float32 [N, E, C]; ``labels`` int64 [N]; ``multiply_adds`` from the input to each exit, ``live_bytes``
    what crosses there. ``model`` is the SHA-256 of the model's file.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    multiply_adds: tuple[int, ...]
    live_bytes: tuple[int, ...]
    model: str

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.probabilities.shape[2])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each input's first choice is right at each exit, [N, E]."""
        return np.asarray(self.probabilities.argmax(axis=2) == self.labels[:, None])

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The largest probability of each input at each exit, [N, E]."""
        return np.asarray(self.probabilities.max(axis=2))

    @property
    def losses(self) -> NDArray[np.float64]:
        """The mean cross entropy at each exit, [E]."""
        likely = self.probabilities[np.arange(len(self.labels)), :, self.labels].astype(np.float64)
        return np.asarray(-np.log(np.maximum(likely, 1e-12)).mean(axis=0))

    def take(self, chosen: NDArray[Any]) -> RecordedExits:
        """Return the answers of some inputs, by index or mask."""
        return replace(self, probabilities=self.probabilities[chosen], labels=self.labels[chosen])

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            probabilities=self.probabilities,
            labels=self.labels,
            names=np.array(self.names),
            multiply_adds=np.array(self.multiply_adds),
            live_bytes=np.array(self.live_bytes),
            model=np.array(self.model),
        )
        return stream.getvalue()


def read_recorded(path: Path) -> RecordedExits:
    """Return the recorded exits in a file of ``hypsc exits record``. Raises `OptionError` for any other content."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _FILE_BYTES:
                raise OptionError(f"{path} holds more than {_FILE_BYTES} bytes; record fewer inputs")
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in _KINDS}
    except FileNotFoundError:
        raise OptionError(f"there is no file {path}; write it with 'hypsc exits record'") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise OptionError(f"{path} has no recorded exits; write it with 'hypsc exits record'") from None
    wrong = next((name for name, kinds in _KINDS.items() if arrays[name].dtype.kind not in kinds), None)
    if wrong or not _fit(arrays):
        raise OptionError(f"{path} is damaged: {wrong or 'its arrays'} do not fit; record the exits again")
    return RecordedExits(
        probabilities=arrays["probabilities"].astype(np.float32),
        labels=arrays["labels"].astype(np.int64),
        names=tuple(map(str, arrays["names"])),
        multiply_adds=tuple(map(int, arrays["multiply_adds"])),
        live_bytes=tuple(map(int, arrays["live_bytes"])),
        model=str(arrays["model"]),
    )


def _fit(arrays: dict[str, NDArray[Any]]) -> bool:
    """Return whether the arrays fit each other, and hold probabilities and classes."""
    found = arrays["probabilities"]
    if found.ndim != 3 or min(found.shape) < 1 or found.shape[2] < 2 or arrays["model"].ndim:
        return False
    inputs, exits, classes = found.shape
    of_exits = all(arrays[name].shape == (exits,) for name in ("names", "multiply_adds", "live_bytes"))
    if arrays["labels"].shape != (inputs,) or not of_exits:
        return False
    labels = arrays["labels"]
    sums = found.sum(axis=2)
    is_probability = bool(np.isfinite(found).all() and (found >= 0).all() and (np.abs(sums - 1) < 1e-3).all())
    grows = bool((np.diff(arrays["multiply_adds"].astype(np.int64)) >= 0).all() and (arrays["live_bytes"] >= 0).all())
    return is_probability and grows and bool((labels >= 0).all() and (labels < classes).all())
