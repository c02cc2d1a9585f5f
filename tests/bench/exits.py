"""Run ``make bench-exits``: accuracy per exit, and what policies fitted to recorded exits reach on other images."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.exits.guarantee import lowest_promised
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import beta_between
from hyps.compiler.exits.thresholds import NEVER, SHARED, first_exits, lowest_within, shared_losses
from tests.bench.exits_data import held_out, tested, trained_on
from tests.bench.exits_decisions import decision_runs
from tests.bench.exits_drawing import exits_drawings
from tests.bench.exits_learning import beta_results, weighted_runs
from tests.bench.exits_page import exits_page
from tests.bench.exits_policies import pareto_points, seed_run
from tests.bench.exits_results import ExitRow, GuaranteeRun, load_exits, save_exits
from tests.bench.exits_storage import storage_runs
from tests.bench.machine import commit
from tests.bench.main import measured
from tests.bench.place import Place
from tests.repository import ROOT

DOCS, NAME = ROOT / "docs", "early-exits"
#: What varies: a link of 0.08 to 80 Mbit/s, sometimes none, and a deadline of half to three times the whole network's time.
VARIED = Conditions(
    joules=1.0,
    seconds=0.1,
    variation=0.2,
    bandwidth=(1e4, 1e7),
    round_trip=0.02,
    no_link=0.1,
    radio_watts=2.0,
    idle_watts=0.5,
    deadline=(0.05, 0.3),
)
VARIED_BETA = 4.0
RESAMPLINGS = 1000


def accuracy(place: Place) -> Any:
    """Measure the accuracy at each exit."""
    parts = [trained_on(), held_out(), tested()]
    figures = [list(zip(part.losses.tolist(), part.correct.mean(axis=0).tolist(), strict=True)) for part in parts]
    last = parts[-1]
    return tuple(
        ExitRow(name=name, multiply_adds=work, live_bytes=live, training=training, held_out=kept, test=test)
        for name, work, live, training, kept, test in zip(
            last.names, last.multiply_adds, last.live_bytes, *figures, strict=True
        )
    )


def betas(place: Place) -> Any:
    """Fit policies for beta between all exits (Seifeddine, chapter 4)."""
    return beta_results(held_out(), tested(), place.say)


def constant(place: Place) -> Any:
    """Learn by DQN where every exit costs 1."""
    fit, test = held_out(), tested()
    return seed_run(fit, test, None, beta_between(1 - fit.correct.mean(axis=0), 2), place.say)


def varied(place: Place) -> Any:
    """Learn by DQN where energy, link and deadline vary."""
    return seed_run(held_out(), tested(), VARIED, VARIED_BETA, place.say)


def classes(place: Place) -> Any:
    """Learn by DQN where errors on one class cost more (Seifeddine, chapter 5, future work)."""
    return weighted_runs(held_out(), tested(), place.say)


def guarantee(place: Place) -> Any:
    """Draw calibration images again and again from all that did not train the network, which are the truth."""
    first, second = held_out(), tested()
    everything = replace(
        first,
        probabilities=np.concatenate([first.probabilities, second.probabilities]),
        labels=np.concatenate([first.labels, second.labels]),
    )
    return tuple(
        _guarantee(everything, method, most_loss, inputs, place)
        for most_loss, inputs in ((0.01, 1000), (0.01, 2000), (0.02, 1000))
        for method in ("guaranteed", "thresholds")
    )


def _guarantee(everything: RecordedExits, method: str, most_loss: float, inputs: int, place: Place) -> GuaranteeRun:
    random = np.random.default_rng(0)
    losses = shared_losses(everything)
    truth = dict(zip(SHARED, losses.mean(axis=0).tolist(), strict=True))
    work = np.array(everything.multiply_adds) / everything.multiply_adds[-1]
    exits = len(everything.names) - 1
    computed = {each: float(work[first_exits(everything.confidence, np.full(exits, each))].mean()) for each in SHARED}
    chosen = []
    for number in range(RESAMPLINGS):
        place.say(f"{method}, {most_loss:.0%} of {inputs}: {number}")
        drawn = losses[random.integers(len(losses), size=inputs)]
        is_guaranteed = method == "guaranteed"
        chosen.append(lowest_promised(drawn, most_loss, 0.95) if is_guaranteed else lowest_within(drawn, most_loss))
    return GuaranteeRun(
        method=method,
        most_loss=most_loss,
        confidence=0.95,
        inputs=inputs,
        resamplings=RESAMPLINGS,
        broken=sum(truth[each] > most_loss for each in chosen),
        never=chosen.count(NEVER),
        computed=float(np.mean([computed[each] for each in chosen])),
    )


def decisions(place: Place) -> Any:
    """Time decisions, and compare onnxruntime's with torch's."""
    return decision_runs(held_out(), tested())


def pareto(place: Place) -> Any:
    """Find what policies reach, from sparing to thorough."""
    return pareto_points(held_out(), tested(), place.say)


def storage(place: Place) -> Any:
    """End inferences of large networks at each exit, on slow storage."""
    return storage_runs(place)


PARTS: dict[str, Callable[[Place], Any]] = {
    "accuracy": accuracy,
    "guarantee": guarantee,
    "decisions": decisions,
    "constant": constant,
    "varied": varied,
    "betas": betas,
    "pareto": pareto,
    "classes": classes,
    "storage": storage,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make every part, or those that were named; each replaces what was known of it. Then write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.exits", description="Early exits: what policies reach.")
    parser.add_argument("--only", action="append", choices=[*PARTS], help="this part alone (repeatable)")
    parser.add_argument("--render", action="store_true", help="make nothing: page and plots from the raw results")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    out, path = Console(highlight=False), DOCS / f"{NAME}.json"
    for name in () if options.render else options.only or PARTS:
        part = measured(PARTS[name], 1, commit(), out)
        save_exits(replace(load_exits(path), **{name: part}), path)
    results = load_exits(path)
    folder = DOCS / NAME
    folder.mkdir(exist_ok=True)
    for name, content in exits_drawings(results).items():
        (folder / f"{name}.svg").write_bytes(content)
    (DOCS / f"{NAME}.md").write_text(exits_page(results), "utf-8")
    out.print(f"written: {DOCS / NAME}.md")


if __name__ == "__main__":
    main()
