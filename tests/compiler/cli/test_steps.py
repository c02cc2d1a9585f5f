"""Group the steps of a bundle as ``hypsc compile`` and ``hypsc inspect`` print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from hyps.compiler.cli.steps import groups_table, step_groups
from hyps.compiler.sharded_operators import ShardedOperator
from hyps.runtime.bundle.records.files import FileRecord, WeightsRecord
from hyps.runtime.bundle.records.steps import Reason, SessionRecord, Step

FC = ShardedOperator(name="fc", count=3, weight_bytes=12_800_000)
START = Reason(kind="first", text="starts at the model's input")
TOO_LARGE = Reason(kind="mandatory", text="fc holds 12.8 MB of weights: 3 shards")
FASTER = Reason(kind="optional", text="the next part is read meanwhile: 3 shards")


def step(name: str, reason: Reason | None, *, streamed_bytes: int = 0) -> Step:
    """Return a step of 4 MB of weights, of which ``streamed_bytes`` are read each time."""
    file = FileRecord(path=f"partitions/{name}.onnx", size_bytes=1, sha256="0" * 64)
    size = 4_000_000
    weights = WeightsRecord(path=f"partitions/{name}.weights", size_bytes=size, sha256="0" * 64, tensors=())
    return Step(
        name=name,
        model=file,
        weights=weights,
        inputs=("x",),
        outputs=("y",),
        live=("y",),
        operators=(name,),
        multiply_adds=0,
        weight_bytes=size,
        activation_bytes=1_000_000,
        alone_bytes=60_000_000,
        peak_bytes=60_000_000,
        pinned_bytes=size - streamed_bytes,
        ahead_bytes=0,
        session=SessionRecord(stays_open=False, reuses_memory=True),
        reason=reason,
    )


def labels(steps: Sequence[Step], sharded: Sequence[ShardedOperator | None] | None = None) -> list[str]:
    return [group.label for group in step_groups(steps, sharded)]


@pytest.mark.parametrize(
    ("reason", "label"),
    [(TOO_LARGE, "01-03  fc in 3 shards, 12.8 MB alone does not fit"), (FASTER, "01-03  fc in 3 shards")],
    ids=["mandatory", "optional"],
)
def test_shards_of_an_operator_are_one_row_and_the_next_step_is_not(reason: Reason, label: str) -> None:
    """The step after the last shard has the shards' reason, too: it starts where they end."""
    steps = [step("00-relu", START), *(step(f"0{index}-fc", reason) for index in (1, 2, 3)), step("04-prob", reason)]
    assert labels(steps, [None, FC, FC, FC, None]) == ["00-relu", label, "04-prob"]


def test_without_the_plan_steps_of_one_reason_are_one_row() -> None:
    steps = [step("00-relu", START), step("01-fc", TOO_LARGE), step("02-fc", TOO_LARGE), step("03-prob", FASTER)]
    assert labels(steps) == ["00-relu", f"01-02  {TOO_LARGE.text}", "03-prob"]


@pytest.mark.parametrize("kind", ["layer", "budget"])
def test_cuts_of_these_kinds_stay_apart(kind: Literal["layer", "budget"]) -> None:
    reason = Reason(kind=kind, text="the same")
    assert labels([step("00-a", START), step("01-b", reason), step("02-c", reason)]) == ["00-a", "01-b", "02-c"]


def test_a_bundle_without_reasons_is_listed_step_by_step() -> None:
    assert labels([step("00-a", None), step("01-b", None)]) == ["00-a", "01-b"]


def test_a_group_adds_up_what_is_read_each_time() -> None:
    steps = [step("00-a", START), *(step(f"0{index}-fc", TOO_LARGE, streamed_bytes=1_000_000) for index in (1, 2, 3))]
    lines = list(groups_table(step_groups(steps, [None, FC, FC, FC])))
    assert max(map(len, lines)) <= 100
    assert lines[2].split("fit")[1].split() == ["4.0", "MB", "each", "3.0", "MB", "60.0", "MB"]
