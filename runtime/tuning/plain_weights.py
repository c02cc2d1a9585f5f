"""Let onnxruntime read weights that are stored compressed.

A partition's model says that its weights lie after the end of their compressed file. There they are put for a while.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.execution.weights_files import weights_file


@contextmanager
def plain_weights(folder: Path, step: Step) -> Iterator[None]:
    """Append a step's weights, decompressed, to their compressed file in the bundle at ``folder``, and take them off again.

    Memory is that of the weights. Raises `BundleError` for a damaged file, `LibraryError` without zstandard.
    """
    if not step.weights or not step.weights.compressed:
        yield
        return
    file, size = weights_file(folder, step.weights, keep_cached=True), step.weights.compressed.size_bytes
    try:
        with file.path.open("r+b") as stream:
            stream.truncate(size + step.weights.size_bytes)
            with mmap.mmap(stream.fileno(), 0) as mapped, memoryview(mapped)[size:] as memory:
                done = 0
                while done < len(memory):
                    done = file.read(stream.fileno(), memory, done, len(memory))
        yield
    finally:
        os.truncate(file.path, size)
