"""Read files of numbers, a line each: the classes of inputs, and the weights of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.errors import OptionError

#: Larger files are refused.
_FILE_BYTES = 64 << 20


def read_classes(path: Path, count: int, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the class of each of ``count`` inputs: a number a line in their order, or ``NAME,CLASS`` of each file.

    Raises `OptionError`, with the line, for anything else.
    """
    lines = _lines(path, "--labels")
    if any("," in line for line in lines):
        by_name = dict(line.rsplit(",", 1) for line in lines if "," in line)
        missing = [name for name in names if name not in by_name]
        if missing or not names:
            raise OptionError(f"--labels: {path} has no line for {missing[0] if missing else 'rows of an array'}; add it")
        lines = [by_name[name] for name in names]
    if len(lines) != count:
        raise OptionError(f"--labels: {path} has {len(lines)} lines for {count} inputs; give one class a line")
    try:
        return np.array([int(line) for line in lines], np.int64)
    except (ValueError, OverflowError):
        raise OptionError(f"--labels: {path} has a line that is no class number; give one class a line, from 0") from None


def read_class_weights(path: Path, count: int) -> NDArray[np.float64]:
    """Return the weight of each class, a number a line, for ``count`` classes. Raises `OptionError`."""
    try:
        weights = [float(line) for line in _lines(path, "--class-weights")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(math.isfinite(each) and each >= 0 for each in weights) or not any(weights):
        raise OptionError(f"--class-weights: {path} needs {count} numbers of 0 and more, one a line, for {count} classes")
    return np.array(weights)


def _lines(path: Path, option: str) -> list[str]:
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise OptionError(f"{option}: {path} is larger than {_FILE_BYTES} bytes; name another file")
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise OptionError(f"{option}: cannot read {path}: {error.strerror}; name another file") from None
    except UnicodeDecodeError:
        raise OptionError(f"{option}: {path} is not UTF-8 text; save it as UTF-8") from None
