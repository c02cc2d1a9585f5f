"""Print planned placements: as tables, as JSON, and as comma-separated values."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from hyps.runtime.cluster.cli.plan_simulation import simulation_plain
from hyps.runtime.cluster.cli.plan_times import times_plain
from hyps.runtime.cluster.planning.comparison import PlanRow
from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.problem import Workload
from hyps.runtime.cluster.planning.reasons import seconds_text
from hyps.runtime.cluster.planning.step_times import ClassTimes
from hyps.runtime.cluster.simulation.result import SimulationResult
from hyps.runtime.terminal.console import prose
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

_CSV_FIELDS = (
    "boards",
    "planner",
    "used",
    "stages",
    "inferences_per_s",
    "latency_s",
    "link_bytes",
    "energy_j",
    "static_j",
    "dynamic_j",
    "most_memory_bytes",
    "remark",
)


def text_lines(workload: Workload, rows: Sequence[PlanRow], objective: str) -> Iterator[str]:
    """Yield a table of all placements, and then the stages, boards and links of the last of our own."""
    numbers = ("inferences/s", "latency", "bytes sent", "J/inference", "most memory")
    columns = (
        Column("boards", numeric=True),
        *([Column("planner")] if any(row.planner != "hyps" for row in rows) else []),
        Column("used", numeric=True),
        *(Column(name, numeric=True) for name in numbers),
        Column("remark", spare=True),
    )
    yield from table(columns, (_summary(row, len(columns) > 8) for row in rows))
    last = next(row for row in reversed(rows) if row.planner == "hyps")
    if last.evaluation:
        yield ""
        yield f"the best {objective} on {last.count} board{'s' if last.count > 1 else ''}: {last.remark}"
        yield ""
        yield from _stages(workload, last)
        if isinstance(last.evaluation.slowest, str):
            yield f"{last.evaluation.slowest} bounds the throughput: stages wait for it"
        yield ""
        yield from _boards(last.evaluation)
        yield ""
        yield from _links(last.evaluation)


def _summary(row: PlanRow, has_planner: bool) -> list[str]:
    first = [str(row.count), *([row.planner] if has_planner else [])]
    figures = row.evaluation
    if figures is None:
        return [*first, "-", "-", "-", "-", "-", "-", row.remark]
    return [
        *first,
        str(len({board.board for board in figures.boards})),
        f"{figures.throughput_per_s:.3g}",
        seconds_text(figures.latency_s),
        megabytes(figures.crossing_bytes),
        f"{figures.energy_j:.3g}",
        megabytes(max(board.holding.memory_bytes for board in figures.boards)),
        row.remark,
    ]


def _stages(workload: Workload, row: PlanRow) -> Iterator[str]:
    for number, stage in enumerate(row.stages):
        first, last = workload.steps[stage.steps.start].name, workload.steps[stage.steps.stop - 1].name
        steps = first if first == last else f"{first} to {last}"
        yield from prose(f"stage {number} on {', '.join(stage.boards)}: {steps}; {stage.reason}", sys.stdout)


def _boards(figures: Evaluation) -> Iterator[str]:
    numbers = ("memory", "weights stay", "read an input", "computes", "messages", "part of inputs", "dynamic J")
    columns = (Column("board"), Column("stage", numeric=True), *(Column(name, numeric=True) for name in numbers))
    rows = (
        [
            board.board,
            str(board.stage),
            megabytes(board.holding.memory_bytes),
            megabytes(board.holding.resident_bytes),
            megabytes(board.holding.streamed_bytes),
            seconds_text(board.holding.compute_s),
            seconds_text(board.holding.handling_s),
            f"{board.part:.0%}",
            f"{board.dynamic_j:.3g}",
        ]
        for board in figures.boards
    )
    yield from table(columns, rows)


def _links(figures: Evaluation) -> Iterator[str]:
    columns = (Column("from"), Column("to"), Column("an inference", numeric=True))
    yield from table(columns, ([*pair, megabytes(nbytes)] for pair, nbytes in figures.link_bytes.items() if nbytes))


def json_document(
    workload: Workload, times: Sequence[ClassTimes], rows: Sequence[PlanRow], simulated: Mapping[int, SimulationResult]
) -> bytes:
    """Return all placements as indented JSON, in SI units, and how the times of steps are known.

    Ours are with what was ``simulated``, by number of boards.
    """
    plain = [dict(_plain(workload, row)) for row in rows]
    for row, values in zip(rows, plain, strict=True):
        if row.planner == "hyps" and row.count in simulated:
            values["simulated"] = simulation_plain(simulated[row.count])
    document = {"times": [times_plain(each) for each in times], "placements": plain}
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _plain(workload: Workload, row: PlanRow) -> Mapping[str, object]:
    figures = row.evaluation
    names = [step.name for step in workload.steps]
    plain: dict[str, object] = {"boards": row.count, "planner": row.planner, "remark": row.remark}
    if figures is None:
        return plain
    return {
        **plain,
        "inferences_per_s": figures.throughput_per_s,
        "latency_s": figures.latency_s,
        "static_j": figures.static_j,
        "dynamic_j": figures.dynamic_j,
        "energy_j": figures.energy_j,
        "slowest": figures.slowest,
        "stages": [
            {
                "steps": [names[number] for number in stage.steps],
                "boards": stage.boards,
                "sharing": stage.sharing,
                "shares": [[names[number] for number in share] for share in stage.shares],
                "period_s": cost.period_s,
                "latency_s": cost.latency_s,
                "reason": stage.reason,
            }
            for stage, cost in zip(row.stages, figures.stages, strict=True)
        ],
        "used": [
            {
                "board": board.board,
                "stage": board.stage,
                "memory_bytes": board.holding.memory_bytes,
                "resident_bytes": board.holding.resident_bytes,
                "streamed_bytes": board.holding.streamed_bytes,
                "compute_s": board.holding.compute_s,
                "streaming_s": board.holding.streaming_s,
                "handling_s": board.holding.handling_s,
                "receiving_s": board.receiving_s,
                "sending_s": board.sending_s,
                "part_of_inputs": board.part,
                "dynamic_j": board.dynamic_j,
            }
            for board in figures.boards
        ],
        "links": [{"from": pair[0], "to": pair[1], "bytes": nbytes} for pair, nbytes in figures.link_bytes.items()],
    }


def csv_lines(rows: Sequence[PlanRow]) -> Iterator[str]:
    """Yield a header, and a line for each placement, in SI units."""
    yield ",".join(_CSV_FIELDS)
    for row in rows:
        figures = row.evaluation
        values: list[object] = [row.count, row.planner, *([""] * 9), row.remark]
        if figures:
            values[2:11] = [
                len({board.board for board in figures.boards}),
                len(figures.stages),
                figures.throughput_per_s,
                figures.latency_s,
                figures.crossing_bytes,
                figures.energy_j,
                figures.static_j,
                figures.dynamic_j,
                max(board.holding.memory_bytes for board in figures.boards),
            ]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(values)
        yield line.getvalue()
