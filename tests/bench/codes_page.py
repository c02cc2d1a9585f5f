"""``docs/codes.md`` from raw results alone: the same results give the same text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hyps.runtime.cluster.placement.coverage import coverage_curve
from tests.bench.codes_drawing import SYSTEMS
from tests.bench.codes_results import CodesResults, DecodingCost, DelayRun, FaultRun, KillRun, LossRun, PhotographRun
from tests.bench.document import markdown
from tests.bench.readings import Part
from tests.bench.tables import Grid

HEAD = """\
# Codes: what losses and stragglers cost

Written by `make bench-codes`; do not edit. The raw results are [codes.json](codes.json). How to use codes: [the
guide](guide/codes.md). The figures that are named are those of R. Hadidi's thesis (2021, chapter 6).

All workers, the hub and the manager are processes of one machine, so that seconds depend on what else it does; compare
rows with each other. The network is the trained CIFAR classifier with conv4_1 coded, unless a section says otherwise."""
_LINK_BYTES_PER_S = 94e6 / 8
#: The columns of what `waits_s` found.
_CALM_WAITS = ("any moment to next: median", "90 %", "added")
_KILLS = """\
One of the workers that hold a shard of the coded group is killed (SIGKILL) in a stream with three images under way, again
and again; it starts again after some answers. *Around* are these answers (20 of the classifier, 8 of VGG16), *undisturbed*
those that are not near a kill. With codes, everything that is not coded has two copies (`--tolerate 1`). The goal is a 99th
percentile around kills of 1.1 times the undisturbed one.

The time from a kill to the next answer is mostly that between two answers of the stream, so the same time is shown from any
moment when nothing was killed. What a kill *adds* is the difference of the medians; the goal is 100 ms.

The classifier runs on four workers on loopback, where another worker loads a lost shard of 0.6 MB within 0.1 s: codes have
nothing to gain there. VGG16 (fc6 in 4 + 1 shards of 103 MB) runs on six workers by links of 94 Mbit/s, as a Raspberry Pi 3
has; boards keep no files of others' steps. There, a shard takes 9 s to fetch, and codes gain that. Six boards do not fit on
a machine of two cores, and copies would double what these compute. So VGG16's workers are *paced*: each picture is computed
once, for real; from then on, a worker waits for as long as 40 thousand million multiply-adds a second would take, and
answers from memory. Messages, decoding, loading and losses are real."""
_DELAYS = """\
One image at a time; each shard's result is delayed on its way to the hub by a lognormal time (median 79 ms, sigma 1.12, at
most 3 s), as figure 6.1 shows for a WLAN. What is not coded is not delayed. *Late* and *always* are `--hedge`. A worker's
messages stay in order, so that what was decoded around still holds up its next answer. The goal is a 95th percentile that
is 35 % lower."""
_DECODING = """\
Codes of the classifier and of VGG16, on random inputs of changing scale: every pattern of losses is decoded and compared
with the real shards. An error is a part of the operator's largest value. The time is that of the slowest shard with one
thread, and of decoding one pattern with hashing its results. The goals are an error below the bound, and 5 % of the
group's time. A cluster's group takes as long as its input takes to a board, a shard there, and the result back: *with the
link* is the part of decoding in that, by a link of 94 Mbit/s, on which both tensors travel once. A real group's take longer,
as each goes through the hub to several boards."""
_LOSSES = """\
Channels of one layer are lost (set to 0), drawn anew for each image; *decoded* is with one of two halves lost and decoded
(figure 6.2). The two photograph classifiers are trained networks of others, on 80 photographs of ImageNet's classes."""
_PHOTOGRAPHS = """\
The photograph classifiers compiled with `--tolerate`, which gives codes to their largest operators. Every pattern of losses
of each code alone, and of all codes at once, is decoded on every photograph, and the rest of the network computed. The goal
is that no first class changes. *Error* is that of a score, as a part of the photograph's largest score."""
_FAULTS = """\
The campaign of `make bench-cluster` on a coded network: random kills of workers and pulled cables under a stream, by links
of 94 Mbit/s; each image must be answered once, and right: bit for bit, or within 1e-4 of the largest score where it was
decoded. The goal for killed workers is that the median time to the next answer is less than 0.1 s longer than from any
moment without a fault. A fault is *second* where the manager had not said yet that any board may be lost: the board of the
fault before had not got its part back. A code with one parity shard, and two copies, survive one loss."""
_COVERAGE = """\
Figure 6.15: with how many extra boards which part of all boards may be lost (one at a time), where every board has a copy
(2MR), and where a code covers all boards of a split layer. C3D's two distributions have the figures that the thesis
states: 44 and 67 %, 36 and 73 % with two extra boards."""


def codes_page(results: CodesResults) -> str:
    """The whole page."""
    blocks = [HEAD, "## A worker is killed", _KILLS, *_part(results.kills, _kills), "## Stragglers", _DELAYS]
    blocks += [*_part(results.delays, _delays), "## What decoding costs", _DECODING, *_part(results.decoding, _decoding)]
    blocks += ["## Without codes", _LOSSES, *_part(results.losses, _losses)]
    blocks += ["## Photographs, with every loss", _PHOTOGRAPHS, *_part(results.photographs, _photographs)]
    blocks += ["## Random faults", _FAULTS]
    blocks += [*_part(results.faults, _faults), "## Coverage", _COVERAGE, *_coverage()]
    return "\n\n".join(blocks) + "\n"


def _part(part: Part[Any] | None, blocks: Any) -> Iterator[str]:
    if part is None:
        yield "Not measured yet."
    elif part.result is None:
        yield f"**Skipped** ({part.when}): {part.skipped}."
    else:
        machine = f"{part.machine.cores} cores of {part.machine.processor}"
        yield f"Measured {part.when} at commit {part.commit}, on {machine}; load average before: {part.load_average:.2f}."
        yield from blocks(part.result)


def _grid(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return markdown(Grid(title="", columns=columns, rows=tuple(rows)))


def _ms(values: Sequence[float], share: float) -> float:
    return 1e3 * float(np.quantile(values, share))


def _kills(runs: Sequence[KillRun]) -> Iterator[str]:
    rows = []
    for run in runs:
        calm, around = _ms(run.calm_s, 0.99), _ms(run.around_s, 0.99)
        following = _waits(run.next_s, run.calm_next_s)
        counts = str(run.kills), str(len(run.calm_s) + len(run.around_s)), str(run.decoded), str(run.wrong)
        rows.append((run.name, *counts, f"{calm:.0f}", f"{around:.0f}", f"{around / calm:.2f}", *following))
    columns = ("", "kills", "answers", "decoded", "wrong", "99 % undisturbed ms", "around", "ratio")
    yield _grid((*columns, "kill to next answer ms: median", "90 %", "most", *_CALM_WAITS), rows)
    if not all(run.calm_next_s for run in runs):
        yield "Rows without the last columns were measured before VGG16's workers were paced."
    yield "![Latency of answers, undisturbed and around kills](codes/kills.svg)"


def _waits(found: Sequence[float], calm: Sequence[float]) -> tuple[str, ...]:
    """Return the cells of waits for the next answer after faults, and without them."""
    cells = (f"{_ms(found, share):.0f}" for share in (0.5, 0.9, 1))
    if not calm:
        return (*cells, "-", "-", "-")
    added = _ms(found, 0.5) - _ms(calm, 0.5)
    return (*cells, f"{_ms(calm, 0.5):.0f}", f"{_ms(calm, 0.9):.0f}", f"{added:.0f}")


def _delays(runs: Sequence[DelayRun]) -> Iterator[str]:
    base = {run.shards: _ms(run.seconds, 0.95) for run in runs if run.name == "without codes"}
    rows = [
        (
            f"{run.shards}, {run.name}",
            str(len(run.seconds)),
            str(run.decoded),
            *(f"{_ms(run.seconds, share):.0f}" for share in (0.5, 0.95, 0.99)),
            f"{1 - _ms(run.seconds, 0.95) / base[run.shards]:.0%}" if run.shards in base else "-",
        )
        for run in runs
    ]
    yield _grid(("shards", "inferences", "decoded", "median ms", "95 %", "99 %", "95 % is lower by"), rows)
    yield "![Latency with and without mitigation](codes/stragglers.svg)"
    yield "![How much lower latency is, by shards](codes/mitigation.svg)"


def _decoding(runs: Sequence[DecodingCost]) -> Iterator[str]:
    rows = [
        (
            run.code,
            f"{run.shards} + {run.parity}",
            str(run.patterns),
            f"{run.inputs:,}",
            f"{run.error:.1e}",
            f"{run.bound:.1e}",
            f"{1e3 * run.shard_s:.2f}",
            f"{1e3 * run.decode_s:.2f}",
            f"{run.decode_s / (run.decode_s + run.shard_s):.0%}",
            _share_with_link(run),
        )
        for run in runs
    ]
    columns = ("operator", "shards", "patterns", "inputs", "largest error", "bound", "shard ms", "decoding ms")
    yield _grid((*columns, "share of both", "with the link"), rows)


def _share_with_link(run: DecodingCost) -> str:
    group_s = run.decode_s + run.shard_s + run.moved_bytes / _LINK_BYTES_PER_S
    return f"{run.decode_s / group_s:.1%}" if run.moved_bytes else "-"


def _losses(runs: Sequence[LossRun]) -> Iterator[str]:
    parts = list(runs[0].accuracy)
    rows = [
        (f"{run.network}, {run.layer}", *(f"{run.accuracy[part]:.1%}" for part in parts), f"{run.coded:.1%}") for run in runs
    ]
    yield _grid(("layer; lost:", *(f"{float(part):.0%}" for part in parts), "decoded"), rows)
    yield "![Accuracy when a part of a layer is lost](codes/losses.svg)"


def _photographs(runs: Sequence[PhotographRun]) -> Iterator[str]:
    rows = [
        (
            f"{run.network}, --tolerate {run.parity}",
            str(run.codes),
            f"{run.patterns:,}",
            str(run.images),
            f"{run.right / run.images:.1%}",
            f"{run.changed} of {run.patterns * run.images:,}",
            f"{run.error:.1e}",
            f"{run.bound:.1e}",
        )
        for run in runs
    ]
    columns = ("network", "codes", "patterns", "photographs", "right", "first classes changed", "error", "codes' bound")
    yield _grid(columns, rows)


def _faults(run: FaultRun) -> Iterator[str]:
    rows = [(kind, str(len(found)), *_waits(found, run.calm_next_s)) for kind, found in run.next_s.items()]
    yield _grid(("fault", "times", "to the next answer ms: median", "90 %", "most", *_CALM_WAITS), rows)
    if not run.calm_next_s:
        yield "This was measured before workers were paced, and before second faults were told apart."
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(run.jobs.items()))
    yield f"{run.answers:,} images of the {run.network}; {run.wrong} answered wrongly; jobs in the journal: {states}."


def _coverage() -> Iterator[str]:
    rows = []
    for name, stages in SYSTEMS.items():
        curve = {point.extra: point for point in coverage_curve(stages)}
        coded = next(point.extra for point in curve.values() if point.coded == 1)
        rows.append(
            (name, str(sum(stages)), f"{curve[2].replicated:.0%}", f"{curve[2].coded:.0%}", str(sum(stages)), str(coded))
        )
    columns = ("system", "boards", "2 extra: 2MR", "codes and 2MR", "extra boards for all: 2MR", "codes and 2MR")
    yield _grid(columns, rows)
    yield "![Coverage by extra boards](codes/coverage.svg)"
