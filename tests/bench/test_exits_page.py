"""Test that the page of early exits shows what was measured, and says which goals are missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.bench.exits_drawing import exits_drawings
from tests.bench.exits_page import exits_page
from tests.bench.exits_results import (
    BetaResults,
    BetaRun,
    DecisionRun,
    ExitRow,
    ExitsResults,
    GuaranteeRun,
    ParetoPoint,
    SeedRun,
    StorageRow,
    StorageRun,
    WeightedRun,
    load_exits,
    save_exits,
)
from tests.bench.readings import Machine, Part

MACHINE = Machine(
    processor="AMD EPYC", architecture="x86_64", cores=2, memory_bytes=1 << 33, storage="ext4", kernel="Linux 6",
    python="3.11", onnxruntime="1.32", numpy="2.2", hyps="0.1.0",
)  # fmt: skip


def part(result: object) -> Part[object]:
    return Part(when="2026-11-30 12:00 UTC", commit="abc", machine=MACHINE, load_average=0.5, seconds=9.0, result=result)


def slow(seconds: float, rates: tuple[float, ...] = ()) -> StorageRun:
    """Return a network of whose 120 MB an inference that ends at exit 1 reads half, in so many of the whole's 2.2 s."""
    rows = (("exit1", 60, seconds, 0.1), ("whole schedule", 120, 2.2, 0.2))
    return StorageRun(
        network="vgg16",
        weight_bytes=200_000_000,
        budget_bytes=50_000_000,
        read_bytes_per_s=60_000_000,
        rates=rates,
        expected_bytes=7e7,
        attach_s=9.0,
        attach_peak_bytes=300_000_000,
        peak_bytes=49_000_000,
        rows=tuple(
            StorageRow(
                exit=name,
                planned_bytes=megabytes * 1_000_000,
                storage_bytes=megabytes * 1e6,
                seconds=taken,
                computing_s=computing,
            )
            for name, megabytes, taken, computing in rows
        ),
    )


def results() -> ExitsResults:
    names = ("exit1", "exit2", "exit3", "exit4", "exit5", "scores")
    rows = [
        ExitRow(name=name, multiply_adds=10 * number, live_bytes=8, training=(1, 0.5), held_out=(1, 0.4), test=(1, 0.41))
        for number, name in enumerate(names, start=1)
    ]
    runs = (
        BetaRun(place=1, loss="cross entropy", beta=3.0, mean_exit={"thresholds": 1.5, "optimum": 1.4}),
        BetaRun(
            place=1,
            loss="error rate",
            beta=9.0,
            mean_exit={"thresholds": 1.2, "optimum": 1.1, "dqn": 2.3},
            dqn_seeds=(2.0, 2.6),
        ),
        BetaRun(place=5, loss="error rate", beta=-9.0, mean_exit={"thresholds": 1.0, "optimum": 1.0}),
    )
    betas = BetaResults(runs=runs, curve=((1.0, 1.0, 0.5), (10.0, 1.7, 0.6), (100.0, 4.4, 0.7)))
    weighted = [
        WeightedRun(
            weight=weight, weighted_class=4, class_errors=errors, other_errors=0.2, mean_exit=2.5, seeds=(errors, errors)
        )
        for weight, errors in ((1.0, 0.5), (10.0, 0.3))
    ]
    seeds = SeedRun(
        beta=4.0,
        dqn=(0.9, 1.0, 1.1, 0.0, 9.0),
        others={"thresholds": 0.95, "optimum": 1.0, "never exit": 0.5},
        offloaded={"dqn": 0.1},
    )
    guarantee = GuaranteeRun(
        method="guaranteed",
        most_loss=0.01,
        confidence=0.95,
        inputs=1000,
        resamplings=1000,
        broken=60,
        never=3,
        computed=0.7,
    )
    decision = DecisionRun(policy="dqn", median_s=2e-5, slow_s=4e-5, file_bytes=31000, states=100_000, differ=2)
    points = [
        ParetoPoint(policy=name, setting="", accuracy=0.7, joules=joules, seconds=0.05)
        for name, joules in (("dqn", 0.4), ("dqn", 0.8), ("never exit", 1.0))
    ]
    made = {
        "accuracy": rows,
        "betas": betas,
        "constant": seeds,
        "varied": seeds,
        "guarantee": [guarantee],
        "decisions": [decision],
        "pareto": points,
        "classes": weighted,
        "storage": [slow(1.0, (0.5,)), slow(1.0)],
    }
    return ExitsResults(**{name: part(result) for name, result in made.items()})  # type: ignore[arg-type]


def test_results_survive_their_file(tmp_path: Path) -> None:
    save_exits(results(), tmp_path / "r.json")
    assert exits_page(load_exits(tmp_path / "r.json")) == exits_page(results())
    assert load_exits(tmp_path / "absent.json") == ExitsResults()


def test_the_page_shows_figures_and_judges_goals() -> None:
    page = exits_page(results())
    assert "65.8 %" in page
    assert "1.50" in page
    assert "2.30, outside" in page  # it is not between exits 1 and 2
    assert "Between the two exits, beta from the cross entropy: thresholds 1 of 1, optimum 1 of 1." in page
    assert "Between the two exits, beta from the error rate: thresholds 1 of 2, optimum 1 of 2, dqn 0 of 1." in page
    assert "the optimum's mean exit is 4.40: no beta makes it end between exits 2 and 3, 3 and 4, 5 and 6" in page
    assert "| 1 to 10 " in page  # the betas for which the optimum ends between exits 1 and 2
    assert "Errors of the weighted class change by -20.00 points." in page
    assert "dqn, interquartile mean" in page
    assert "DQN reaches 100.00% of the optimum's value: the goal is met." in page  # the mean of 0.9, 1.0 and 1.1
    assert "DQN is +0.0500 against the best fixed thresholds: the goal is met." in page
    assert "The promise is NOT kept." in page  # 6 % are more than 5 %
    assert "2 of 100,000" in page


def test_skipped_bytes_and_seconds_are_compared() -> None:
    page = exits_page(results())
    assert "50.0% | 50.0% | 50.0% | 54.5%" in page  # 1.1 of 2.2 s were expected, 1.0 measured
    assert page.count("At most 0.0 points of bytes and 4.5 of seconds from that: the goal is met.") == 2
    assert "reads 70.0 MB an inference in the mean; compiled without, 90.0 MB." in page
    slower = exits_page(replace(results(), storage=part([slow(1.3)])))  # type: ignore[arg-type]
    assert "0.0 points of bytes and 9.1 of seconds from that: the goal is missed." in slower


def test_a_missed_goal_is_said() -> None:
    poor = SeedRun(beta=4.0, dqn=(0.5,) * 5, others={"thresholds": 0.95, "optimum": 1.0}, offloaded={"dqn": 0.0})
    page = exits_page(replace(results(), constant=part(poor), varied=part(poor)))  # type: ignore[arg-type]
    assert page.count("the goal is missed") == 2


def test_what_was_not_measured_is_said() -> None:
    assert exits_page(ExitsResults()).count("Not measured yet.") == 9
    assert exits_drawings(ExitsResults()) == {}


def test_plots_are_drawn() -> None:
    drawn = exits_drawings(results())
    assert set(drawn) == {"pareto", "betas"}
    assert all(content.startswith(b"<?xml") for content in drawn.values())
