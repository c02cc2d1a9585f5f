"""State in words whether a plan fits and at what price; ``hypsc compile`` and ``hypsc report`` use the same words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyps.compiler.requests import NO_TARGET
from hyps.passes.device import DeviceRates
from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.units import megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReads:
    """The bytes of weights that every inference reads, and those that are read once and stay in memory.

    ``read_bytes`` is what storage reads for the former: less where weights are compressed. ``stored_bytes`` are the sizes of
    all weights files, ``file_bytes`` what they would be uncompressed. ``tables`` are the weights of which an inference reads
    only the rows that it asks for.
    """

    streamed_bytes: int
    pinned_bytes: int
    read_bytes: int
    stored_bytes: int
    file_bytes: int
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVerdict:
    """The figures by which a user judges a plan.

    ``tolerance`` is 0 if the outputs are bit-exact, infinite if there is no bound; ``inexact_reason`` says why they are not
    exact. ``is_stock``: the bundle runs with onnxruntime's default options. ``has_own_rates`` says that the target's
    computing rates were measured on the device. A figure that is not known is None, and is not stated.
    """

    model: str
    budget_bytes: int | None
    peak_bytes: int
    whole_peak_bytes: int | None
    smallest_budget_bytes: int | None
    tolerance: float
    inexact_reason: str | None
    latency_s: float | None
    storage_latency_s: float | None
    target: str
    has_own_rates: bool
    reads: WeightReads | None
    is_stock: bool

    @property
    def headline(self) -> str:
        """The sentence that says whether the plan fits, with its peak and the whole model's."""
        peak = megabytes(self.peak_bytes)
        budget = megabytes(self.budget_bytes) if self.budget_bytes else None
        fits = f"fits in {budget}: its peak is {peak}" if budget else f"has a peak of {peak}"
        if self.is_stock:
            return f"{self.model} {fits} (predicted), whole and with onnxruntime's default options"
        if self.whole_peak_bytes is None:
            return f"{self.model} {fits} (predicted)"
        return f"{self.model} {fits}, the whole model's {megabytes(self.whole_peak_bytes)} (both predicted)"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield names and values: what the answers equal, the time, the weights that are read, and the smallest budget."""
        yield "answers", self._answers()
        if self.latency_s is not None:
            yield "time", f"{self._seconds(self.latency_s)}{self._machine()}"
        if self.reads:
            yield "read each time", _weights(self.reads)
            if self.reads.stored_bytes < self.reads.file_bytes:
                stored, plain = megabytes(self.reads.stored_bytes), megabytes(self.reads.file_bytes)
                yield "compressed", f"the weights take {stored} of storage, and {plain} uncompressed"
        if self.smallest_budget_bytes is not None:
            yield "smallest budget", megabytes(self.smallest_budget_bytes)

    def _answers(self) -> str:
        """Say how close the outputs are to the whole model's, and why they are not equal."""
        whole = "stock onnxruntime's" if self.is_stock else "the whole model's"
        if not self.tolerance:
            return f"bit for bit {whole}" if self.is_stock else f"bit for bit {whole}, under the same session options"
        if math.isinf(self.tolerance):
            bound = f"not bit for bit {whole}; numbers that are rounded to 8 bits may differ by whole steps"
        else:
            bound = f"not bit for bit {whole}, but within {self.tolerance:g} of its largest output"
        return f"{bound}: {self.inexact_reason}" if self.inexact_reason else bound

    def _seconds(self, latency_s: float) -> str:
        """Return the time, and the longer one if the weights come from storage and not from the system's cache."""
        about, slowest = f"about {latency_s:.2g} s", f"{self.storage_latency_s or latency_s:.2g} s"
        return about if about == f"about {slowest}" else f"{about} ({slowest} where weights are read from storage)"

    def _machine(self) -> str:
        """Name the machine that the time is estimated for; see ``passes/calibration.toml``."""
        if self.target == NO_TARGET:
            storage = megabytes(int(DeviceRates().storage_bytes_per_s))
            return f", estimated for one x86-64 core and storage of {storage}/s; name your device with --target"
        if self.has_own_rates:
            return f" on {self.target}, estimated"
        return (
            f" on {self.target}, estimated from its storage and the speed of one x86-64 core; 'hyps-run calibrate' on the "
            "device measures its own"
        )


def weight_reads(steps: Sequence[Step]) -> WeightReads:
    """Return the bytes of weights that these steps read for every inference, and those that stay in memory."""
    files = {step.weights.path: step.weights for step in steps if step.weights}.values()
    return WeightReads(
        streamed_bytes=sum(step.streamed_bytes for step in steps),
        pinned_bytes=sum(step.pinned_bytes for step in steps),
        read_bytes=sum(step.read_bytes for step in steps),
        stored_bytes=sum(file.stored.size_bytes for file in files),
        file_bytes=sum(file.size_bytes for file in files),
        tables=tuple(dict.fromkeys(step.rows.table.name for step in steps if step.rows)),
    )


def code_facts(manifest: Manifest) -> Iterator[str]:
    """Yield for each operator with parity shards what may be lost, how exact decoding is, and what it costs."""
    weight_bytes = {name: step.weight_bytes for step in manifest.steps for name in step.outputs}
    for code in manifest.codes:
        lost = "any one" if len(code.parity) == 1 else f"any {len(code.parity)}"
        shards = f"{len(code.shards)} + {len(code.parity)} shards, {lost} of which may be lost"
        growth = f"errors grow up to {code.amplification:.3g} times"
        exact = (
            f"decoded within {code.error_bound:.1e} of the largest output ({growth})"
            if code.error_bound
            else "decoded exactly, bit for bit"
        )
        yield f"{code.name} in {shards}; {exact}; {megabytes(sum(weight_bytes[name] for name in code.parity))} more"


def exit_facts(manifest: Manifest) -> Iterator[str]:
    """Yield for each exit its output, the step after which it is, its part of the multiply-adds, and its rate."""
    whole = max(1, manifest.exits[-1].macs) if manifest.exits else 1
    for number, each in enumerate(manifest.exits, 1):
        yield (
            f"{number} of {len(manifest.exits)}, {each.output}: after step {each.after_step}, {each.macs:,} "
            f"multiply-adds ({each.macs / whole:.0%}); {each.rate:.0%} of all inferences are expected to end there"
        )


def _weights(reads: WeightReads) -> str:
    return (
        f"of {', '.join(reads.tables)} the rows that are asked for; else {_whole(reads)}" if reads.tables else _whole(reads)
    )


def _whole(reads: WeightReads) -> str:
    if not reads.streamed_bytes:
        return f"nothing: all {megabytes(reads.pinned_bytes)} of weights stay in memory" if reads.pinned_bytes else "nothing"
    streamed = megabytes(reads.streamed_bytes)
    if reads.read_bytes < reads.streamed_bytes:
        streamed = f"{megabytes(reads.read_bytes)}, which decompress to {streamed}"
    if not reads.pinned_bytes:
        return f"{streamed}, all of the weights"
    return f"{streamed} of the weights; {megabytes(reads.pinned_bytes)} stay in memory"
