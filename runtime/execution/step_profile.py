"""Measure each step of an inference: where its time goes, its page faults, and the bytes that it reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hyps.runtime.device.process_memory import memory, page_faults, storage_bytes_read


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """One step's measurements. Its time is the sum of ``wait_s`` to ``close_s``, in their order.

    - ``wait_s``: until its weights are in memory; ``open_s``: to open its session;
    - ``run_s``: that onnxruntime computes; ``copy_s``: to hand tensors to onnxruntime and to take them back;
    - ``close_s``: to close the session and to give memory back;
    - ``hash_s``: of checking weights for the first time, by any thread: a part of ``wait_s``, or next to the computing;
    - ``minor_faults``: memory pages that the kernel had to give or to map, ``major_faults``: those that it had to read;
    - ``read_bytes``: from storage, those that are read ahead for the next step included;
    - ``resident_bytes``: of the process after the step has run.
    """

    name: str
    wait_s: float
    open_s: float
    run_s: float
    copy_s: float
    close_s: float
    hash_s: float
    minor_faults: int
    major_faults: int
    read_bytes: int
    resident_bytes: int


class StepMeter:
    """The measurement of one step, which begins now; ``hash_s`` returns the seconds of hashing since the bundle was open."""

    def __init__(self, name: str, hash_s: Callable[[], float]) -> None:
        self._name, self._hash_s = name, hash_s
        self._hashed_before, self._faults_before, self._read_before = hash_s(), page_faults(), storage_bytes_read()
        self._began_at = time.perf_counter()
        self._loaded_at = self._opened_at = self._ran_at = self._closing_at = self._began_at
        self._run_s = 0.0
        self._resident_bytes = 0

    def loaded(self, at: float) -> None:
        """Note when the weights were in memory, and that the session is open now."""
        self._loaded_at, self._opened_at = at, time.perf_counter()

    def ran(self, run_s: float) -> None:
        """Note that the step has run, and the seconds of it that onnxruntime computed."""
        self._ran_at, self._run_s = time.perf_counter(), run_s
        self._resident_bytes = memory().resident_bytes
        self._closing_at = time.perf_counter()  # without the look at the memory

    def profile(self) -> StepProfile:
        """Return the measurements of the step, which has ended."""
        close_s = time.perf_counter() - self._closing_at
        minor, major = page_faults()
        return StepProfile(
            name=self._name,
            wait_s=self._loaded_at - self._began_at,
            open_s=self._opened_at - self._loaded_at,
            run_s=self._run_s,
            copy_s=max(0.0, self._ran_at - self._opened_at - self._run_s),
            close_s=close_s,
            hash_s=self._hash_s() - self._hashed_before,
            minor_faults=minor - self._faults_before[0],
            major_faults=major - self._faults_before[1],
            read_bytes=storage_bytes_read() - self._read_before,
            resident_bytes=self._resident_bytes,
        )
