"""A detector's bundle in a budget that is impossible without tiles: compiled, compared, and measured as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

from tests.passes.test_tiling import detector

BUDGET_MB = 80


def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    module = {"hypsc": "hyps.compiler.cli", "hyps-run": "hyps.runtime.cli"}[name]
    line = [sys.executable, "-P", "-c", f"from {module} import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_a_detector_runs_where_it_only_fits_in_tiles(tmp_path: Path) -> None:
    model, bundle, image = tmp_path / "detector.onnx", tmp_path / "bundle", tmp_path / "image.npy"
    proto = detector(480, 640, (16, 32, 64, 128, 256)).proto
    model.write_bytes(onnx.shape_inference.infer_shapes(proto).SerializeToString())
    np.save(image, np.random.default_rng(0).standard_normal((1, 3, 480, 640)).astype(np.float32))
    options = ("compile", model, "--memory", f"{BUDGET_MB}MB", "--threads", 2, "-o", bundle, "--json")

    refused = command("hypsc", *options, "--tile", "off")
    assert refused.returncode == 2
    assert "conv0" in refused.stderr or "leaky0" in refused.stderr

    compiled = command("hypsc", *options)
    assert compiled.returncode == 0, compiled.stderr
    summary = json.loads(compiled.stdout)
    assert summary["exact"]
    assert any("tiles of rows" in change["what"] for change in summary["changes"])
    assert any(step["tiled"] for step in json.loads((bundle / "manifest.json").read_text())["steps"])

    validated = command("hypsc", "validate", model, bundle, "--random", 2)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    assert "bit for bit equal" in validated.stdout

    ran = command("hyps-run", bundle, image, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["peak_rss_bytes"] <= summary["peak_bytes"] <= BUDGET_MB * 10**6
