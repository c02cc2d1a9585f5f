"""Tune bundles of real networks: the answers, the memory, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import hyps.runtime
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import BundleError
from hyps.runtime.tuning import partition
from hyps.runtime.tuning.optimise import has_layout, weights_path, write_optimised
from hyps.runtime.tuning.stored_weights import stored_weights
from hyps.runtime.tuning.tune import tune
from tests.compiler.conftest import listing
from tests.waiting import PATIENCE_S

#: Networks, each with budgets in MB: many steps, some that stay untuned for want of room, and one step.
NETWORKS = {"mobilenetv2": (72,), "squeezenet": (60, 128), "cifar10_vgg": (60,)}
CASES = [(name, budget) for name, budgets in NETWORKS.items() for budget in budgets]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    "avx" not in Path("/proc/cpuinfo").read_text(), reason="onnxruntime has no other layout on this processor"
)


@pytest.fixture(scope="module")
def run(bin_folder: Path) -> Run:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(bin_folder / words[0]), *map(str, words[1:])]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with each network, an input of it, and a bundle for each budget."""
    folder = tmp_path_factory.mktemp("tuned")
    for name, budgets in NETWORKS.items():
        model = folder / f"{name}.onnx"
        assert run("hypsc", "models", "build", name, "-o", model).returncode == 0
        shape = ort.InferenceSession(model).get_inputs()[0].shape
        np.save(folder / f"{name}.npy", np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        for budget in budgets:
            words = ("--memory", f"{budget}MB", "--tier", "arena", "--tunable", "-o", folder / f"{name}-{budget}")
            assert run("hypsc", "compile", model, *words).returncode == 0
    return folder


def whole(model: Path, values: Path, level: str) -> np.ndarray[Any, Any]:
    """Return the whole model's output at an optimisation level, without prepacked weights."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(model, options)
    (output,) = session.run(None, {session.get_inputs()[0].name: np.load(values)})
    assert isinstance(output, np.ndarray)
    return output


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_a_tuned_bundle_keeps_the_answers_and_the_budget(
    name: str, budget: int, place: Path, run: Run, tmp_path: Path
) -> None:
    model, values, bundle = place / f"{name}.onnx", place / f"{name}.npy", place / f"{name}-{budget}"
    done = run("hyps-run", "tune", bundle, "-o", tmp_path / "tuned", "--json")
    if done.returncode:
        assert "no step of" in done.stderr
        assert "tuned, it would take" in done.stderr or "tuning it takes" in done.stderr
        assert listing(tmp_path) == {}
        return
    said = json.loads(done.stdout)
    assert said["tuned"] + len(said["untuned"]) == said["steps"]
    assert said["tuned"]
    assert said["tuning_peak_bytes"] <= budget * 10**6
    manifest = read_manifest(tmp_path / "tuned")
    check_files(tmp_path / "tuned", manifest)
    outputs = {}
    for options in ((), ("--untuned",)):
        target = tmp_path / f"out{len(options)}.npz"
        ran = run("hyps-run", tmp_path / "tuned", values, "--json", "--repeat", "2", "--save", target, *options)
        assert ran.returncode == 0, ran.stderr
        assert ("--untuned runs it as it was compiled" in ran.stderr) == bool(options)
        measured = json.loads(ran.stdout)["peak_rss_bytes"]
        assert measured <= (budget * 10**6 if options else said["peak_bytes"])
        (outputs[options],) = np.load(target).values()
    blocks, usual = whole(model, values, "ORT_ENABLE_ALL"), whole(model, values, "ORT_ENABLE_EXTENDED")
    assert np.abs(outputs[()] - blocks).max() <= 1e-5 * np.abs(blocks).max()  # 4e-6 was seen
    assert (outputs[("--untuned",)] == usual).all()
    if len(manifest.steps) == 1:
        assert (outputs[()] == blocks).all()
        assert (outputs[()] != usual).any()  # so it is computed in another way


def test_compressed_weights_are_tuned(place: Path, run: Run, tmp_path: Path) -> None:
    """Within the same budget, with the results of a bundle that is not compressed; its own files stay as they were."""
    model, values = place / "mobilenetv2.onnx", place / "mobilenetv2.npy"
    for name, more in (("plain", ()), ("small", ("--compress-weights",))):
        options = ("--target", "rpi3b", "--memory", "72MB", "--threads", "1", "--tier", "arena", "--tunable", *more)
        assert run("hypsc", "compile", model, *options, "-o", tmp_path / name).returncode == 0
        done = run("hyps-run", "tune", tmp_path / name, "-o", tmp_path / f"{name}-tuned", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["tuning_peak_bytes"] <= 72 * 10**6
        ran = run("hyps-run", tmp_path / f"{name}-tuned", values, "--json", "--save", tmp_path / f"{name}.npz")
        assert json.loads(ran.stdout)["peak_rss_bytes"] <= 72 * 10**6
    plain, small = (next(iter(np.load(tmp_path / f"{name}.npz").values())) for name in ("plain", "small"))
    assert np.abs(plain - small).max() <= 1e-5 * np.abs(plain).max()  # they may be cut in other places
    manifest = read_manifest(tmp_path / "small-tuned")
    assert manifest.tuned and manifest.has_compressed_weights
    check_files(tmp_path / "small-tuned", manifest)


def test_a_bundle_is_tuned_while_it_is_compiled(place: Path, run: Run, tmp_path: Path) -> None:
    command = ("hypsc", "compile", place / "squeezenet.onnx", "--memory", "67MB", "-o", tmp_path / "tuned", "--json")
    done = run(*command, "--tune", "--tier", "arena")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["tuned"] + len(said["untuned"]) == len(said["partitions"])
    assert said["tuned"]
    assert run("hypsc", "validate", place / "squeezenet.onnx", tmp_path / "tuned").returncode == 0
    report = run("hypsc", "report", tmp_path / "tuned", "-o", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        pytest.param(
            """(float[1, 16, 8, 8] x) => (float[1, 16, 6, 6] y) {
                shape = Constant <value_ints = [16, 16, 3, 3]> ()
                w = ConstantOfShape (shape)
                y = Conv (x, w)
            }""",
            True,
            id="convolution",
        ),
        pytest.param("(float[8, 8] x, float[8, 8] w) => (float[8, 8] y) { y = MatMul (x, w) }", False, id="product"),
        pytest.param(
            """(uint8[1, 16, 8, 8] x, float s, uint8 z) => (uint8[1, 16, 1, 1] y) {
                y = com.microsoft.QLinearGlobalAveragePool <channels_last = 0> (x, s, z, s, z)
            }""",
            False,
            id="usual layout by name",
        ),
    ],
)
def test_a_layout_is_an_operators(graph: str, expected: bool, tmp_path: Path) -> None:
    """It is not a domain that onnxruntime imports in every model that it writes."""
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    onnx.save(onnx.parser.parse_model(f"{header} g {graph}"), tmp_path / "model.onnx")
    write_optimised(tmp_path / "model.onnx", tmp_path / "optimised.onnx", None)
    assert b"com.microsoft.nchwc" in (tmp_path / "optimised.onnx").read_bytes()
    assert has_layout(tmp_path / "optimised.onnx") == expected


def edited(bundle: Path, target: Path, **changes: Any) -> Path:
    """Copy a tuned bundle and change fields of its record."""
    shutil.copytree(bundle, target)
    document = json.loads((target / MANIFEST_NAME).read_bytes())
    document["tuned"] |= changes
    (target / MANIFEST_NAME).write_text(json.dumps(document))
    return target


@pytest.fixture(scope="module")
def tuned(place: Path) -> Path:
    if not (place / "tuned").exists():
        tune(place / "squeezenet-128", place / "tuned")
    return place / "tuned"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"onnxruntime": "1.0.0"}, "tuned with onnxruntime 1.0.0, and this is", id="another version"),
        pytest.param({"machine": "riscv64"}, "tuned on riscv64, and this is", id="another machine"),
        pytest.param({"features": ["avx512f"]}, "differ in", id="another processor"),
        pytest.param({"steps": []}, "0 entries for", id="no steps"),
    ],
)
def test_another_processor_is_refused(
    changes: dict[str, Any], said: str, tuned: Path, place: Path, run: Run, tmp_path: Path
) -> None:
    """It runs as it was compiled, with a warning."""
    other = edited(tuned, tmp_path / "other", **changes)
    done = run("hyps-run", other, place / "squeezenet.npy")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr
    if changes != {"steps": []}:
        assert "--untuned" in done.stderr
        ran = run("hyps-run", other, place / "squeezenet.npy", "--untuned")
        assert ran.returncode == 0
        assert "--untuned runs it as it was compiled" in ran.stderr
        with hyps.runtime.load(other, is_tuned=False) as bundle:
            assert not bundle.manifest.tuned


def test_wrong_numbers_stay_out(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that onnxruntime did not mean for this processor would give other numbers, and no error."""

    def wrong(source: Path, target: Path, custom_ops: Path | None) -> None:
        write_optimised(source, target, custom_ops)
        content = bytearray(weights_path(target).read_bytes())
        content[:4096], content[4096:8192] = content[4096:8192], content[:4096]
        weights_path(target).write_bytes(content)

    monkeypatch.setattr(partition, "write_optimised", wrong)
    with pytest.raises(BundleError, match="its results differ by"):
        tune(place / "squeezenet-128", tmp_path / "tuned")
    assert listing(tmp_path) == {}


def test_no_step_is_tuned_beyond_the_budget(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to the arena there is room for a little more: filters that fill no whole block may take more than that."""
    bundle = place / "mobilenetv2-72"
    manifest = read_manifest(bundle)
    assert manifest.activations
    usual = tune(bundle, tmp_path / "usual")
    full = {
        step.name: step.alone_bytes + manifest.arena_growth_bytes(step)
        for step in manifest.steps
        if step.name not in usual.untuned and step.session.uses_arena
    }
    more = manifest.budget_bytes - max(full.values()) + 1
    assert any(step.alone_bytes + more <= manifest.budget_bytes for step in manifest.steps)  # without the arena it fits
    monkeypatch.setattr(partition, "more_weights_bytes", lambda step, tuned: more if tuned else 0)
    tuned = tune(bundle, tmp_path / "tuned")
    assert "tuned, it would take" in tuned.untuned[max(full, key=lambda name: full[name])]
    assert read_manifest(tmp_path / "tuned") == tuned.manifest  # which refuses a peak beyond the budget


def test_tuning_again_is_the_same(tuned: Path, tmp_path: Path) -> None:
    again = tune(tuned, tmp_path / "again")
    assert again.manifest == read_manifest(tuned)
    assert read_manifest(tmp_path / "again") == again.manifest


def test_a_place_that_is_taken_is_kept(tuned: Path, place: Path, run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(place / "squeezenet-128", copy)
    before = listing(copy)
    refused = run("hyps-run", "tune", copy, "-o", copy)
    assert (refused.returncode, listing(copy)) == (2, before)
    assert "--force" in refused.stderr
    assert run("hyps-run", "tune", copy, "-o", copy, "--force").returncode == 0
    assert read_manifest(copy).tuned
    assert run("hyps-run", "tune", copy).returncode == 0
    assert read_manifest(tmp_path / "bundle-tuned") == read_manifest(copy)


def test_stored_weights_are_onnxs(tuned: Path, place: Path, tmp_path: Path) -> None:
    """The reader of the wire format finds what onnx finds, in every model of a tuned bundle."""
    count = 0
    for path in sorted((tuned / "partitions").glob("*.onnx")):
        proto = onnx.load(path, load_external_data=False)
        expected = [
            (tensor.name, tuple(tensor.dims), int({each.key: each.value for each in tensor.external_data}["offset"]))
            for tensor in proto.graph.initializer
            if tensor.external_data
        ]
        assert [(each.name, each.shape, each.offset) for each in stored_weights(path)] == expected
        count += len(expected)
    assert count


@pytest.mark.parametrize("length", [1, 7, 100, 1000])
def test_a_model_that_is_cut_short_is_refused(length: int, tuned: Path, tmp_path: Path) -> None:
    (source,) = (tuned / "partitions").glob("*.tuned.onnx")
    (tmp_path / "cut.onnx").write_bytes(source.read_bytes()[:length])
    with pytest.raises(BundleError, match="is no ONNX model"):
        stored_weights(tmp_path / "cut.onnx")
