"""The predicted peak is never below the measured one: every reference network and every shared model, at six budgets."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hyps.models.catalogue import NETWORKS
from tests.regression.budgets import compiled, inputs, measured_bytes, peaks, smallest_bytes

pytestmark = pytest.mark.regression

SEEDED = [name for name, network in NETWORKS.items() if not network.trained]
ROOT = Path(__file__).parents[2]
SHARED = sorted((ROOT.parent / "shared" / "data" / "models").rglob("*.onnx"))
#: How many random draws one test makes.
HANDFUL = 12
#: Their inputs are of any length: the refusal, which `compiled` asserts, asks for one (`test_suites.py` gives it).
REFUSED = {"silero_vad", "tract_byte_sb_bidi_lstm"}


@pytest.mark.parametrize("name", [*SEEDED, "cifar10_vgg"])
def test_reference_network(name: str, network: Callable[[str], Path], tmp_path: Path) -> None:
    model = ROOT / "models" / "cifar10_vgg.onnx" if name == "cifar10_vgg" else network(name)
    found = list(peaks(model, tmp_path))
    assert found
    assert all(each.measured_bytes <= each.predicted_bytes <= each.budget_bytes for each in found), found


@pytest.mark.skipif(not SHARED, reason="no ../shared/data")
@pytest.mark.parametrize("model", SHARED, ids=lambda model: model.stem)
def test_shared_model(model: Path, tmp_path: Path) -> None:
    found = list(peaks(model, tmp_path))
    assert bool(found) == (model.stem not in REFUSED)
    assert all(each.measured_bytes <= each.predicted_bytes <= each.budget_bytes for each in found), found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``--draws N`` in handfuls, each with a seed, so that several processes share them."""
    if "seed" in metafunc.fixturenames:
        draws = metafunc.config.getoption("--draws")
        handfuls = [(seed, min(HANDFUL, draws - start)) for seed, start in enumerate(range(0, draws, HANDFUL))]
        metafunc.parametrize(("seed", "draws"), handfuls)


def test_random_draws(seed: int, draws: int, network: Callable[[str], Path], tmp_path: Path) -> None:
    """Any network, budget, threads and batch; ``--draws N`` for more than the few of CI."""
    rng = random.Random(seed)
    small = ["alexnet", "resnet50", "googlenet", "mobilenetv2", "squeezenet"]
    known: dict[str, tuple[int, int]] = {}
    for draw in range(draws):
        name = rng.choice(["cifar10_vgg", *small])
        model = ROOT / "models" / "cifar10_vgg.onnx" if name == "cifar10_vgg" else network(name)
        bundle = tmp_path / "bundle"
        if name not in known:
            whole = compiled(model, bundle, 10**11)
            assert whole
            known[name] = smallest_bytes(model, bundle), whole["peak_bytes"]
        smallest, most = known[name]
        budget = rng.randint(smallest, int(1.1 * most))
        threads, (batch, count) = rng.choice([1, 2]), rng.choice([(1, 1), (1, 3), (2, 3), (4, 4), (20, 20), (64, 70)])
        split = rng.choice(["auto", "auto", "pooling", "layers"])
        summary = compiled(model, bundle, budget, "--threads", str(threads), "--split", split)
        if summary is None:  # pooling and layers need more than auto
            assert split != "auto"
            continue
        peak = measured_bytes(bundle, inputs(bundle, tmp_path, count), "--batch", str(batch), "--threads", str(threads))
        assert peak <= budget, json.dumps([seed, draw, name, budget, threads, batch, count, split, peak])
