"""Tiles end to end: a large picture within a budget that no plan keeps without them, and the whole model's own numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

from hyps.runtime.sessions import open_session, to_numpy
from tests.passes.nets import Net

Command = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_picture(threads: int, hypsc: Command, hyps_run: Command, tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 3, 720, 1280)
    value = "x"
    for index, filters in enumerate((16, 16, 32)):
        before = (3, 16, 16)[index]
        net.node("Relu", net.conv(value, f"c{index}", (filters, before, 3, 3)), to=f"r{index}")
        value = net.node("MaxPool", f"r{index}", to=f"p{index}", kernel_shape=[2, 2], strides=[2, 2])
    net.output(value)
    model, bundle, saved = tmp_path / "m.onnx", tmp_path / "bundle", tmp_path / "out.npz"
    onnx.save(onnx.shape_inference.infer_shapes(net.proto()), model)
    options = ("--memory", "85MB", "--threads", str(threads), "-o", bundle, "--json")
    assert "the smallest budget that works is" in hypsc("compile", model, *options, "--tile", "off").stderr
    compiled = hypsc("compile", model, *options)
    assert compiled.returncode == 0, compiled.stderr
    summary = json.loads(compiled.stdout)
    assert any("tiles of rows" in change["what"] for change in summary["changes"])
    picture = np.random.default_rng(0).standard_normal((1, 3, 720, 1280), dtype=np.float32)
    np.save(tmp_path / "x.npy", picture)
    ran = hyps_run(bundle, tmp_path / "x.npy", "--json", "--threads", str(threads), "--save", saved)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["peak_rss_bytes"] <= summary["peak_bytes"] <= 85_000_000
    whole = open_session(model, threads).run([value], {"x": picture})
    with np.load(saved) as outputs:
        np.testing.assert_array_equal(outputs[value], to_numpy(whole[value]))
