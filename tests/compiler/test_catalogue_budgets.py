"""Networks of the catalogue at growing budgets: none is estimated to be slower, and all agree on the smallest budget."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hyps.compiler.jobs import PlanningJob
from hyps.compiler.model_io.load import load_model
from hyps.compiler.planning import analyse, plan_model
from hyps.models.catalogue import NETWORKS, build
from hyps.passes.errors import DoesNotFit
from hyps.passes.planning.request import Request

#: Networks that are built and planned in seconds.
LIGHT = (
    "squeezenet",
    "mobilenetv2",
    "mobilenetv2_int8",
    "googlenet",
    "vit_tiny",
    "lstm_tagger",
    "cifar10_vgg",
    "resnet50",
)
#: Bytes. The first is tight for most of these networks.
BUDGETS = (72_000_000, 96_000_000, 128_000_000, 256_000_000, 512_000_000)
NETWORKS_TO_PLAN = [pytest.param(name, marks=() if name in LIGHT else pytest.mark.regression, id=name) for name in NETWORKS]


@pytest.fixture(scope="module", params=NETWORKS_TO_PLAN)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network, which the tests share."""
    path = tmp_path_factory.mktemp("catalogue") / f"{request.param}.onnx"
    build(request.param, path)
    return path


def job(model: Path, budget_bytes: int | None) -> PlanningJob:
    """Return the job to plan a network for a budget."""
    return PlanningJob(model=model, request=Request(budget_bytes=budget_bytes), target_name="test")


def test_a_larger_budget_is_never_estimated_to_be_slower(model: Path) -> None:
    found = []
    with load_model(model) as loaded:
        for budget in BUDGETS:
            try:
                found.append(plan_model(loaded, job(model, budget)).plan.latency_s)
            except DoesNotFit:
                assert not found
    assert all(more <= less for less, more in itertools.pairwise(found))
    assert len(found) >= len(BUDGETS) - 2


def test_a_refusal_names_the_smallest_budget_that_analysis_finds(model: Path) -> None:
    smallest = analyse(job(model, None)).smallest_budget_bytes
    assert smallest is not None
    with load_model(model) as loaded:
        with pytest.raises(DoesNotFit, match=f"{smallest / 1e6:.1f} MB") as caught:
            plan_model(loaded, job(model, 1_000_000))
        assert caught.value.smallest_budget_bytes == smallest
        assert plan_model(loaded, job(model, smallest)).plan.smallest_budget_bytes == smallest
        with pytest.raises(DoesNotFit):
            plan_model(loaded, job(model, smallest - 100_000))
