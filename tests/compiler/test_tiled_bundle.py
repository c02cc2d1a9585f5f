"""Compile and run tiled plans, of a large picture and of many tokens, which fit only in tiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

from hyps.runtime.execution.session import open_session, to_numpy
from tests.passes.attentions import transformer
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
    assert_tiled(net, "rows", 85, threads, hypsc, hyps_run, tmp_path)


def test_what_the_user_has_split_is_not_tiled(hypsc: Command, tmp_path: Path) -> None:
    """An operator that the user splits is not tiled, although the search for the smallest budget would tile it."""
    net = Net()
    net.input("x", 1, 3, 720, 1280)
    net.node("Relu", net.conv("x", "c0", (16, 3, 3, 3)), to="r0")
    net.node("MaxPool", "r0", to="p0", kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.node("Relu", net.conv("p0", "c1", (64, 16, 3, 3)), to="r1"))
    onnx.save(onnx.shape_inference.infer_shapes(net.proto()), tmp_path / "m.onnx")
    options = ("--memory", "260MB", "-o", tmp_path / "bundle", "--json")
    for name in ("c0", "c1"):
        done = hypsc("compile", tmp_path / "m.onnx", *options, "--shard", f"{name}=channel:2", "--force")
        assert done.returncode == 0, done.stderr
        split = [change for change in json.loads(done.stdout)["changes"] if "2 shards" in change["what"]]
        assert [change["operator"] for change in split] == [name]


@pytest.mark.parametrize(("budget_mb", "threads"), [(75, 2), (100, 1)])
def test_many_tokens(budget_mb: int, threads: int, hypsc: Command, hyps_run: Command, tmp_path: Path) -> None:
    """An attention of 12 heads and 1,000 tokens has 48 MB of scores."""
    net = transformer(tokens=1000, heads=12, size=32, blocks=2)
    assert_tiled(net, "heads", budget_mb, threads, hypsc, hyps_run, tmp_path)


def assert_tiled(
    net: Net, along: str, budget_mb: int, threads: int, hypsc: Command, hyps_run: Command, folder: Path
) -> None:
    """Check that a model of one input and output needs tiles for a budget, keeps within it, and gives the same bits."""
    model, bundle, saved = folder / "m.onnx", folder / "bundle", folder / "out.npz"
    proto = onnx.shape_inference.infer_shapes(net.proto())
    onnx.save(proto, model)
    options = ("--memory", f"{budget_mb}MB", "--threads", str(threads), "-o", bundle, "--json")
    assert "the smallest budget that works is" in hypsc("compile", model, *options, "--tile", "off").stderr
    compiled = hypsc("compile", model, *options)
    assert compiled.returncode == 0, compiled.stderr
    summary = json.loads(compiled.stdout)
    assert summary["exact"]
    assert any(f"tiles of {along}" in change["what"] for change in summary["changes"])
    shape = [dimension.dim_value for dimension in proto.graph.input[0].type.tensor_type.shape.dim]
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.save(folder / "x.npy", values)
    ran = hyps_run(bundle, folder / "x.npy", "--json", "--threads", str(threads), "--save", saved)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["peak_rss_bytes"] <= summary["peak_bytes"] <= budget_mb * 10**6
    output = proto.graph.output[0].name
    whole = open_session(model, threads).run([output], {"x": values})
    with np.load(saved) as outputs:
        np.testing.assert_array_equal(outputs[output], to_numpy(whole[output]))
