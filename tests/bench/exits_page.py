"""``docs/early-exits.md`` from raw results alone: the same results give the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tests.bench.exits_results import DecisionRun, ExitRow, ExitsResults, GuaranteeRun, ParetoPoint, SeedRun
from tests.bench.exits_tables import BETAS, CLASSES, STORAGE, beta_lines, class_lines, grid, storage_lines
from tests.bench.readings import Part

#: Validation accuracy in per cent at exits 0 to 5: Seifeddine, table 3.1.
REPORTED = (65.8, 74.44, 79.31, 82.59, 82.51, 82.48)

HEAD = """\
# Early exits: accuracy, policies and promises

Written by `make bench-exits`; do not edit. The raw results are [early-exits.json](early-exits.json). How to use exits: [the
guide](guide/exit-policies.md). The report that is named is W. Seifeddine's "AI on the Edge".

The network is `models/wassimnet.onnx`, trained on 8,000 images. Policies are fitted to its answers for 2,000 more, which it
was not trained on, and measured on the 2,000 test images. Energy and time are
predicted from multiply-adds."""
_ACCURACY = """\
The report's network has up to 512 channels and 20 million weights, and was trained on 50,000 images; this one has up to 120
channels, and a sixth of the images, which were JPEG files. A loss is the mean cross entropy. *Crosses* is what an inference
that is offloaded at the exit sends."""
_CONSTANT = """\
Every exit costs 1; beta is that between exits 2 and 3 by the error rate. (By the cross entropy it is 4.8, and all policies
stop nearly every image at exit 1.) The optimum is found by backward induction over bins of the largest probability, on the
same images as the other policies; on others it is not the best there is. The goal is a DQN within 2 % of the optimum's
value, as the interquartile mean of 5 seeds. A first DQN, twice as wide, without weight decay, for beta 4.8, reached 84 %:
it had learned its images by heart. The settings since then were chosen on halves of the 2,000 held-out images."""
_VARIED = """\
An inference of the whole network takes 1 J and 100 ms, 20 % more or less. Its link has 0.08 to 80 Mbit/s and 20 ms of round
trip, and one in ten has none. The radio takes 2 W; the next tier is ten times as fast. The deadline is 50 to 300 ms, and a
late answer counts as wrong; beta is 4 J. The goal is a DQN that is better than the best fixed thresholds. *Optimum* knows
the bins of confidence and bandwidth alone, not the deadline."""
_GUARANTEE = """\
Images are drawn from all 4,000 that did not train the network, with replacement; their whole is the truth. *Guaranteed*
promises "at most so much less accurate than the whole network, with 95 % confidence", so that it may be broken in at most
5 %. *Thresholds* takes the lowest that keeps to the loss on the images drawn, without a promise."""
_DECISIONS = """\
The time of one decision on this machine, at random exits of the test images. The goals are 0.2 ms, 100,000 bytes, and the
same action by onnxruntime and by torch in all states."""
_PARETO = """\
Accuracy against energy and time of an image, where the whole network takes 1 J and 100 ms, and nothing is offloaded."""


def exits_page(results: ExitsResults) -> str:
    """The whole page."""
    parts: tuple[tuple[str, str, Part[Any] | None, Callable[[Any], Iterator[str]]], ...] = (
        ("Accuracy at each exit", _ACCURACY, results.accuracy, _accuracy),
        ("What policies reach", _PARETO, results.pareto, _pareto),
        ("Slow storage", STORAGE, results.storage, storage_lines),
        ("Beta between exits", BETAS, results.betas, beta_lines),
        ("DQN where nothing varies", _CONSTANT, results.constant, _constant),
        ("DQN where energy, link and deadline vary", _VARIED, results.varied, _varied),
        ("DQN with a weight on one class", CLASSES, results.classes, class_lines),
        ("The guarantee", _GUARANTEE, results.guarantee, _guarantee),
        ("Decisions", _DECISIONS, results.decisions, _decisions),
    )
    blocks = [HEAD]
    for title, text, part, lines in parts:
        blocks += [f"## {title}", text, *_part(part, lines)]
    return "\n\n".join(blocks) + "\n"


def _part(part: Part[Any] | None, blocks: Callable[[Any], Iterator[str]]) -> Iterator[str]:
    if part is None:
        yield "Not measured yet."
    elif part.result is None:
        yield f"**Skipped** ({part.when}): {part.skipped}."
    else:
        machine = f"{part.machine.cores} cores of {part.machine.processor}"
        yield f"Measured {part.when} at commit {part.commit}, on {machine}; load average before: {part.load_average:.2f}."
        yield from blocks(part.result)


def _accuracy(exits: Sequence[ExitRow]) -> Iterator[str]:
    rows = [
        (
            row.name,
            f"{reported:.1f} %",
            f"{row.test[1]:.2%}",
            f"{row.held_out[1]:.2%}",
            f"{row.training[1]:.2%}",
            *(f"{loss:.4f}" for loss in (row.test[0], row.held_out[0], row.training[0])),
            f"{row.multiply_adds / exits[-1].multiply_adds:.1%}",
            f"{row.live_bytes:,}",
        )
        for row, reported in zip(exits, REPORTED, strict=True)
    ]
    columns = ("exit", "report, validation", "test", "held out", "training", "test loss", "held-out loss", "training loss")
    yield grid((*columns, "multiply-adds", "crosses, bytes"), rows)


def _interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half; of five values, that of the middle three."""
    cut = len(values) // 4
    return float(np.mean(sorted(values)[cut : len(values) - cut]))


def _seeds(run: SeedRun) -> Iterator[str]:
    middle = _interquartile_mean(run.dqn)
    rows = [(name, f"{value:.4f}", f"{run.offloaded.get(name, 0):.1%}") for name, value in run.others.items()]
    rows.append(("dqn, interquartile mean", f"{middle:.4f}", f"{run.offloaded['dqn']:.1%}"))
    rows += [(f"dqn, seed {seed}", f"{value:.4f}", "") for seed, value in enumerate(run.dqn)]
    yield f"Beta is {run.beta:.4g}."
    yield grid(("policy", "mean value", "offloaded"), rows)


def _constant(run: SeedRun) -> Iterator[str]:
    yield from _seeds(run)
    ratio = _interquartile_mean(run.dqn) / run.others["optimum"]
    yield f"DQN reaches {ratio:.2%} of the optimum's value: {'the goal is met' if ratio >= 0.98 else 'the goal is missed'}."
    yield f"The best fixed thresholds reach {run.others['thresholds'] / run.others['optimum']:.2%} of it."


def _varied(run: SeedRun) -> Iterator[str]:
    yield from _seeds(run)
    difference = _interquartile_mean(run.dqn) - run.others["thresholds"]
    met = "the goal is met" if difference > 0 else "the goal is missed"
    yield f"DQN is {difference:+.4f} against the best fixed thresholds: {met}."


def _guarantee(runs: Sequence[GuaranteeRun]) -> Iterator[str]:
    rows = [
        (
            f"{run.method}, at most {run.most_loss:.0%}",
            f"{run.inputs:,}",
            f"{run.resamplings:,}",
            f"{run.broken / run.resamplings:.1%}",
            f"{run.never / run.resamplings:.1%}",
            f"{run.computed:.1%}",
        )
        for run in runs
    ]
    yield grid(("thresholds", "images drawn", "drawings", "broken", "never exits", "multiply-adds computed"), rows)
    kept = all(run.broken <= (1 - run.confidence) * run.resamplings for run in runs if run.method == "guaranteed")
    yield f"The promise is {'kept' if kept else 'NOT kept'}."


def _decisions(runs: Sequence[DecisionRun]) -> Iterator[str]:
    rows = [
        (
            run.policy,
            f"{1e3 * run.median_s:.4f}",
            f"{1e3 * run.slow_s:.4f}",
            f"{run.file_bytes:,}",
            f"{run.differ:,} of {run.states:,}" if run.states else "-",
        )
        for run in runs
    ]
    yield grid(("policy", "median ms", "99 % ms", "file, bytes", "torch decides otherwise"), rows)


def _pareto(points: Sequence[ParetoPoint]) -> Iterator[str]:
    yield "![Accuracy against joules and milliseconds](early-exits/pareto.svg)"
    rows = [
        (
            f"{point.policy} {point.setting}".strip(),
            f"{point.accuracy:.2%}",
            f"{point.joules:.3f}",
            f"{1e3 * point.seconds:.1f}",
        )
        for point in points
    ]
    yield grid(("policy", "accuracy", "joules", "ms"), rows)
