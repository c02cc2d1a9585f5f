"""Bring one step's weights from their file into memory, hash them on the way, and hand them to onnxruntime.

Pinned weights and compressed ones are read into memory of our own, the others are mapped.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from hyps.runtime.bundle.manifest import STORAGE_TYPES, Step, WeightsRecord
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.tensor import RawTensor
from hyps.runtime.execution.weight_buffers import WeightBuffer
from hyps.runtime.execution.weights_files import READ_BLOCK_BYTES, weights_file


class StepWeights:
    """The weights of one step: the first ``filled`` bytes of their file are in memory.

    The first ``pinned_bytes`` stay there; the rest comes into memory for every inference.
    """

    def __init__(
        self,
        bundle: Path,
        step: Step,
        record: WeightsRecord,
        *,
        huge: bool,
        verify: bool,
        keep_cached: bool,
    ) -> None:
        self.nbytes = record.size_bytes
        self.pinned_bytes = step.pinned_bytes
        self.filled = 0
        self.hash_s = 0.0
        self._record = record
        self._file = weights_file(bundle, record, keep_cached=keep_cached)
        self._path = self._file.path
        #: The bytes that are read into the buffer; those that follow are mapped.
        pinned_pages = -(-self.pinned_bytes // mmap.PAGESIZE)
        self._read_bytes = self.nbytes if record.compressed else min(self.nbytes, pinned_pages * mmap.PAGESIZE)
        self._is_to_be_mapped = self._read_bytes < self.nbytes
        self._buffer = WeightBuffer(self.nbytes, huge=huge and not self._is_to_be_mapped)
        self._digest = hashlib.sha256() if verify else None
        self._hashed = 0

    @property
    def streamed_bytes(self) -> int:
        """The bytes that come into memory for every inference."""
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
        is_cancelled = cancelled.is_set if cancelled else lambda: False
        try:
            if self._is_to_be_mapped or self.filled < self._read_bytes:
                self._read(stop, is_cancelled)
            while self.filled < stop and not is_cancelled():
                end = min(stop, self.filled + READ_BLOCK_BYTES)
                self._buffer.populate(self.filled, end)
                self._fill(end)
        except OSError as error:
            reason = "became shorter" if error.errno == errno.EFAULT else error.strerror
            raise BundleError(f"cannot read {self._path}: {reason}", "copy the bundle again") from None

    def _read(self, stop: int, is_cancelled: Callable[[], bool]) -> None:
        """Read into the buffer what is not mapped."""
        with self._path.open("rb", buffering=0) as stream:
            if self._is_to_be_mapped:
                self._map(stream.fileno())
            stop = min(stop, self._read_bytes)
            while self.filled < stop and not is_cancelled():
                self._fill(self._file.read(stream.fileno(), self._buffer.view, self.filled, stop))

    def _map(self, file: int) -> None:
        """Map what is not read. A file that the kernel cannot map is read as a whole."""
        if os.fstat(file).st_size < self.nbytes:
            raise BundleError(f"{self._path} became shorter", "copy the bundle again")
        try:
            self._buffer.map_file(file, self._read_bytes)
        except OSError:
            self._read_bytes = self.nbytes
        self._is_to_be_mapped = False

    def _fill(self, end: int) -> None:
        """Check the bytes up to ``end``, which are in memory."""
        self._check(self._buffer.view[self.filled : end])
        was_pinned = self.filled >= self.pinned_bytes
        self.filled = end
        if self.filled >= self.pinned_bytes and not was_pinned:
            self._buffer.lock(self.pinned_bytes)

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

    def keep(self, stop: int) -> None:
        """Give back what is in memory of the bytes that are not pinned and follow ``stop``."""
        stop = max(stop, self.pinned_bytes)
        if self.filled > stop:
            self.filled = stop
            self._buffer.release(stop)
            self._file.forget(stop)

    def values(self) -> dict[str, RawTensor]:
        """Return the weights by name, over this memory, without a copy."""
        values = {}
        for tensor in self._record.tensors:
            stop = tensor.offset + tensor.elements * STORAGE_TYPES[tensor.dtype].item_bytes
            values[tensor.name] = RawTensor(tensor.dtype, tensor.shape, self._buffer.view[tensor.offset : stop])
        return values
