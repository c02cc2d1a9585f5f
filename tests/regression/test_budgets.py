"""Every reference network at every budget: the plan is the golden one, the budget holds, the result is the whole model's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import read_manifest
from tests.regression.conftest import THREADS

#: Those with an image of 224x224; the others are in `test_predictions`.
SEEDED = ["vgg16", "vgg19", "alexnet", "resnet50", "googlenet", "mobilenetv2", "squeezenet"]
BUDGETS_MB = (96, 128, 256, 512)

pytestmark = pytest.mark.regression

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("budget_mb", BUDGETS_MB)
@pytest.mark.parametrize("name", SEEDED)
def test_network_within_budget(
    name: str,
    budget_mb: int,
    network: Callable[[str], Path],
    whole: Callable[[str, bool], dict[str, NDArray[Any]]],
    pixels: Path,
    command: Command,
    golden: Callable[[str, Any], None],
    tmp_path: Path,
) -> None:
    bundle, saved = tmp_path / "bundle", tmp_path / "out.npz"
    compiled = command(
        "hypsc", "compile", network(name), "--memory", f"{budget_mb}MB", "--threads", THREADS, "-o", bundle, "--json"
    )
    assert compiled.returncode == 0, compiled.stderr
    summary = json.loads(compiled.stdout)
    ran = command("hyps-run", bundle, pixels, "--json", "--threads", THREADS, "--repeat", 2, "--save", saved)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["peak_rss_bytes"] <= summary["peak_bytes"] <= budget_mb * 10**6
    assert summary["exact"]
    with np.load(saved) as outputs:
        for output, values in whole(name, read_manifest(bundle).is_stock).items():
            np.testing.assert_array_equal(outputs[output], values)
    golden(f"{name}-{budget_mb}", _essence(summary))


def test_smallest_budget_is_kept_too(network: Callable[[str], Path], pixels: Path, command: Command, tmp_path: Path) -> None:
    """What a refusal proposes works, and is kept at run time."""
    refused = command("hypsc", "compile", network("vgg16"), "--memory", "62MB", "-o", tmp_path / "no")
    assert refused.returncode == 2
    proposed = refused.stderr.strip().rsplit("is ", 1)[1].replace(" ", "")
    bundle = tmp_path / "bundle"
    assert command("hypsc", "compile", network("vgg16"), "--memory", proposed, "-o", bundle).returncode == 0
    result = json.loads(command("hyps-run", bundle, pixels, "--json").stdout)
    assert result["peak_rss_bytes"] <= result["budget_bytes"] == round(float(proposed.removesuffix("MB")) * 10**6)


def _essence(summary: dict[str, Any]) -> dict[str, Any]:
    """What a golden plan keeps: where the cuts are, why, and what each partition needs."""
    keys = (
        "name",
        "weight_bytes",
        "activation_bytes",
        "pinned_bytes",
        "ahead_bytes",
        "kept",
        "peak_bytes",
        "leaving_bytes",
        "tier",
    )
    return {
        "whole_peak_bytes": summary["whole_peak_bytes"],
        "smallest_budget_bytes": summary["smallest_budget_bytes"],
        "changes": [change for change in summary["changes"] if any(word in change["what"] for word in ("shards", "tiles"))],
        "partitions": [
            {"operators": f"{len(part['operators'])}: {part['operators'][0]} .. {part['operators'][-1]}"}
            | {key: part[key] for key in keys}
            | {"reason": f"{part['reason']['kind']}: {part['reason']['text']}"}
            for part in summary["partitions"]
        ],
    }
