"""Read one step's weights from their file into memory of our own, hash them on the way, and hand them to onnxruntime."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from threading import Event

from hyps.runtime.bundle.manifest import STORAGE_TYPES, Step, WeightsRecord
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.tensor import RawTensor
from hyps.runtime.execution.weight_buffers import WeightBuffer
from hyps.runtime.execution.weights_files import weights_file


class StepWeights:
    """The weights of one step: the first ``filled`` bytes of their file are in ``buffer``, from ``start`` on.

    The first ``pinned_bytes`` stay there; the rest is read for every inference.
    """

    def __init__(
        self,
        bundle: Path,
        step: Step,
        record: WeightsRecord,
        buffer: WeightBuffer,
        start: int,
        *,
        verify: bool,
        keep_cached: bool,
    ) -> None:
        self.nbytes = record.size_bytes
        self.pinned_bytes = step.pinned_bytes
        self.start = start
        self.buffer = buffer
        self.filled = 0
        self.hash_s = 0.0
        self._record = record
        self._file = weights_file(bundle, record, keep_cached=keep_cached)
        self._path = self._file.path
        self._view = buffer.view[start : start + record.size_bytes]
        self._digest = hashlib.sha256() if verify else None
        self._hashed = 0

    @property
    def streamed_bytes(self) -> int:
        """The bytes that are read for every inference."""
        return self.nbytes - self.pinned_bytes

    def reachable(self, stop: int) -> int:
        """Return how many bytes of the weights can be in memory when none after ``stop`` may be."""
        return self._file.reachable(stop)

    def fetch(self, stop: int, cancelled: Event | None = None) -> None:
        """Read on until the first ``stop`` bytes are in memory, as far as `reachable`, or until ``cancelled``.

        Raises `BundleError` when the file is not the manifest's. Its sha256 is compared when the last byte is read for the
        first time, which is before anything is computed with it.
        """
        stop = self.reachable(stop)
        if self.filled >= stop:
            return
        try:
            with self._path.open("rb", buffering=0) as stream:
                while self.filled < stop and not (cancelled and cancelled.is_set()):
                    self._read_some(stream.fileno(), stop)
        except OSError as error:
            raise BundleError(f"cannot read {self._path}: {error.strerror}", "copy the bundle again") from None

    def _read_some(self, file: int, stop: int) -> None:
        end = self._file.read(file, self._view, self.filled, stop)
        self._check(self._view[self.filled : end])
        was_pinned = self.filled >= self.pinned_bytes
        self.filled = end
        if self.filled >= self.pinned_bytes and not was_pinned:
            self.buffer.lock(self.pinned_bytes)

    def _check(self, block: memoryview) -> None:
        """Hash the part of a block that was not hashed before, and compare the hash at the end of the file."""
        known = self._hashed - self.filled
        if self._digest is None or known >= len(block):
            return
        began = time.perf_counter()
        self._digest.update(block[max(0, known) :])
        self.hash_s += time.perf_counter() - began
        self._hashed = self.filled + len(block)
        if self._hashed == self.nbytes:
            if self._digest.hexdigest() != self._record.sha256:
                self._digest, self._hashed, self.filled = hashlib.sha256(), 0, 0
                raise BundleError(f"{self._path} was changed: its sha256 is not the manifest's", "copy the bundle again")
            self._digest = None

    def give_back(self) -> None:
        """Keep the pinned bytes only. The other pages of a step's own buffer are freed, those of the arena may be reused."""
        self.filled = min(self.filled, self.pinned_bytes)
        if self.pinned_bytes:
            self.buffer.release(self.pinned_bytes, self.nbytes)

    def values(self) -> dict[str, RawTensor]:
        """Return the weights by name, over this memory, without a copy."""
        values = {}
        for tensor in self._record.tensors:
            stop = tensor.offset + tensor.elements * STORAGE_TYPES[tensor.dtype].item_bytes
            values[tensor.name] = RawTensor(tensor.dtype, tensor.shape, self._view[tensor.offset : stop])
        return values
