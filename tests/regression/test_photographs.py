"""Real trained classifiers on real photographs: the bundle's top-5 is the whole model's on all 80.

``images.csv`` was made without regard to EXIF orientation, which ``hyps-run`` honours: one photograph of the 80 lies on its
side there. It is compared with the whole model on the same upright pixels (`hypsc validate`), not with the table.
"""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.regression

CLASSIFIERS = [
    pytest.param("derived_squeezenet11_fp32", "imagenet-caffe", "66MB", 0, id="squeezenet"),
    pytest.param("derived_mobilenet_v1_025", "tf", "64MB", 1, id="mobilenet"),  # its class 0 is the background
]


@pytest.mark.parametrize(("model", "preprocess", "memory", "first_class"), CLASSIFIERS)
def test_top5_of_every_photograph(
    model: str,
    preprocess: str,
    memory: str,
    first_class: int,
    shared_data: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    path, bundle = shared_data / "models" / f"{model}.onnx", tmp_path / "bundle"
    compiled = command(
        "hypsc",
        "compile",
        path,
        "--memory",
        memory,
        "--split",
        "pooling",
        "--preprocess",
        preprocess,
        "-o",
        bundle,
        "--json",
    )
    assert compiled.returncode == 0, compiled.stderr
    partitions = json.loads(compiled.stdout)["partitions"]
    validated = command("hypsc", "validate", path, bundle, "--images", shared_data / "images", "--json")
    assert validated.returncode == 0, validated.stdout + validated.stderr
    comparison = json.loads(validated.stdout)
    ran = command("hyps-run", bundle, shared_data / "images", "--json")
    assert ran.returncode == 0, ran.stderr
    results = {Path(line["input"]).name: line for line in map(json.loads, ran.stdout.splitlines())}
    with (shared_data / "images.csv").open() as stream:
        expected = {row["file"]: [int(index) for index in row[f"{model}:top5"].split()] for row in csv.DictReader(stream)}
    found = {name: [scored["index"] - first_class for scored in result["top"]] for name, result in results.items()}
    assert comparison["samples"] == 80
    assert [output["top5"] for output in comparison["outputs"]] == [1.0]
    upright = {name for name in expected if _is_upright(shared_data / "images" / name)}
    assert len(upright) == 79
    assert {name: found[name] for name in upright} == {name: expected[name] for name in upright}
    assert all(result["peak_rss_bytes"] <= result["budget_bytes"] for result in results.values())
    assert len(partitions) >= 3


def _is_upright(path: Path) -> bool:
    with Image.open(path) as picture:
        return bool(picture.getexif().get(0x0112, 1) == 1)
