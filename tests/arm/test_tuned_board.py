"""The part of ``make test-arm FAST=1`` on speed: tuning, compressed weights and faster sessions on a board.

All commands run on one board, one after the other. The bits are compared with those of onnxruntime on the same board.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.session import session_options
from tests.arm.board import SAVED, Job, boot
from tests.arm.networks import deviation
from tests.arm.parts import CACHE, disk_image, make_parts, missing_tools, run
from tests.arm.rows import TOLERANCE
from tests.repository import BIN, ROOT

pytestmark = pytest.mark.arm

#: Small networks of the catalogue, with their inputs' shapes: one trained, in fp32, and one in 8 bits.
SHAPES = {"cifar10_vgg": (1, 3, 32, 32), "mobilenetv2_int8": (1, 3, 224, 224)}
FLOAT, ROUNDED = SHAPES
#: A bundle: the network, the budget, the options, and the tier of all its steps.
Case = tuple[str, str, tuple[str, ...], str | None]
BUNDLES: dict[str, Case] = {
    "arena": (FLOAT, "66MB", ("--tier", "arena", "--preprocess", "cifar10"), "arena"),
    "compressed": (FLOAT, "64MB", ("--compress-weights", "--tier", "lean"), None),
    "stock": (FLOAT, "72MB", (), "stock"),
    "rounded": (ROUNDED, "96MB", ("--tunable", "--tier", "arena"), "arena"),
}
#: A bundle for pictures, which needs no numpy; on a board it runs the same picture as the bundle ``arena``.
SMALL: Case = (FLOAT, "49MB", ("--interface", "c", "--preprocess", "cifar10"), "arena")
#: The operators by which ALL differs from EXTENDED on a board (docs/arm.md), by their numbers.
CHANGES = {
    FLOAT: Counter[str](),
    ROUNDED: Counter(
        {
            "com.microsoft.QLinearConv, channels last": 52,
            "com.microsoft.QLinearGlobalAveragePool, channels last": 1,
            "Transpose": 2,
        }
    ),
}

Said = dict[str, Any]


def _commands() -> dict[str, list[str]]:
    """Return what the board runs, by name."""
    inputs = {name: f"/data/{name}.npy" for name in SHAPES}
    commands = {
        name: ["hyps-run", f"/data/{name}", inputs[network], "--json", "--save", "{saved}"]
        for name, (network, *_) in BUNDLES.items()
    }
    for network, values in inputs.items():
        commands[f"{network}-levels"] = ["python3", "/opt/board/levels.py", f"/data/{network}.onnx", values, "{saved}"]
    whole = ("/opt/board/whole.py", "inside", f"/data/{FLOAT}.onnx", "{saved}", inputs[FLOAT])
    commands["whole"] = ["python3", *whole]
    for name in ("small", "arena"):
        commands[f"{name}-picture"] = ["hyps-run", f"/data/{name}", "/data/picture.jpg", "--json"]
    commands["arena-picture"] += ["--save", "{saved}"]  # numpy's format: so Python's interface computes it
    commands["tune-float"] = ["hyps-run", "tune", "/data/arena", "-o", "/tmp/float-tuned", "--memory", "96MB"]
    commands["tune-rounded"] = ["hyps-run", "tune", "/data/rounded", "-o", "/tmp/rounded-tuned", "--json"]
    tuned = ["hyps-run", "/tmp/rounded-tuned", inputs[ROUNDED], "--json", "--save", "{saved}"]
    return {**commands, "tuned": tuned, "untuned": [*tuned, "--untuned"], "left": ["/bin/busybox", "ls", "-A", "/tmp"]}


@pytest.fixture(scope="module")
def folder() -> Path:
    """The data disk's files: both networks with inputs, every bundle, and the commands."""
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not installed; 'make test-arm' installs them on Debian")
    folder = CACHE / "tuned"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for network, shape in SHAPES.items():
        run(BIN / "hypsc", "models", "build", network, "-o", folder / f"{network}.onnx", "--external-data")
        np.save(folder / f"{network}.npy", np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    for name, (network, budget, options, _) in {**BUNDLES, "small": SMALL}.items():
        words = ("--target", "rpi3b", "--memory", budget, *options, "-o", folder / name)
        run(BIN / "hypsc", "compile", folder / f"{network}.onnx", *words)
    shutil.copy(ROOT / "models" / "cat.jpg", folder / "picture.jpg")
    (folder / "commands.json").write_text(json.dumps(_commands()))
    return folder


@pytest.fixture(scope="module")
def outcome(folder: Path) -> tuple[dict[str, Said], dict[str, np.ndarray[Any, Any]]]:
    """What each command said, and the arrays that it saved, as ``command/array``."""
    parts = make_parts()
    disk = disk_image(folder, folder.with_suffix(".img"))
    command = ("python3", "/opt/board/several.py", "/data/commands.json", SAVED)
    done = boot(parts, Job(memory_mib=512, disk=disk, command=command))
    assert done.exit == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    with np.load(io.BytesIO(done.saved)) as saved:
        return {line["name"]: line for line in lines}, dict(saved)


@pytest.fixture(scope="module")
def said(outcome: tuple[dict[str, Said], dict[str, np.ndarray[Any, Any]]]) -> dict[str, Said]:
    return outcome[0]


@pytest.fixture(scope="module")
def arrays(outcome: tuple[dict[str, Said], dict[str, np.ndarray[Any, Any]]]) -> dict[str, np.ndarray[Any, Any]]:
    return outcome[1]


def _answer(arrays: dict[str, np.ndarray[Any, Any]], command: str) -> np.ndarray[Any, Any]:
    """Return the only array that a command saved."""
    (found,) = (values for name, values in arrays.items() if name.startswith(f"{command}/"))
    return found


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_keeps_its_promise_and_its_budget(
    name: str, folder: Path, said: dict[str, Said], arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    network, _, options, tier = BUNDLES[name]
    manifest = read_manifest(folder / name)
    assert {step.session.tier for step in manifest.steps} == {tier or msgspec.UNSET}
    if "--compress-weights" in options:
        assert all(step.weights and step.weights.compressed for step in manifest.steps)
    assert said[name]["exit"] == 0, said[name]["stderr"]
    predicted = max(step.peak_bytes for step in manifest.steps)
    assert 40e6 < said[name]["peak_bytes"] <= predicted <= manifest.budget_bytes
    found = _answer(arrays, name)
    whole = _answer(arrays, "whole") if tier == "stock" else arrays[f"{network}-levels/EXTENDED"]
    assert np.array_equal(found, whole)
    assert deviation(found, _answer_here(folder, network)) <= TOLERANCE


def test_a_picture_takes_less_memory_without_numpy(folder: Path, said: dict[str, Said]) -> None:
    manifest = read_manifest(folder / "small")
    small, usual = said["small-picture"], said["arena-picture"]
    assert (small["exit"], usual["exit"]) == (0, 0), small["stderr"] + usual["stderr"]
    predicted = max(step.peak_bytes for step in manifest.steps)
    assert small["peak_bytes"] <= predicted <= manifest.budget_bytes < usual["peak_bytes"]
    assert json.loads(small["stdout"])["top"] == json.loads(usual["stdout"])["top"]


def test_there_is_nothing_to_tune_without_another_layout(said: dict[str, Said]) -> None:
    done = said["tune-float"]
    assert (done["exit"], done["stdout"]) == (2, "")
    assert done["stderr"].splitlines() == [
        "hyps-run: no step of /data/arena can be tuned: onnxruntime has no faster layout for it on this processor; "
        "run it as it is"
    ]
    assert not any(name.startswith("float-tuned") for name in said["left"]["stdout"].split())


def test_a_tuned_bundle_gives_the_bits_of_the_untuned_one(
    folder: Path, said: dict[str, Said], arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    assert said["tune-rounded"]["exit"] == 0, said["tune-rounded"]["stderr"]
    facts = json.loads(said["tune-rounded"]["stdout"])
    assert (facts["machine"], facts["onnxruntime"]) == ("aarch64", ort.__version__)
    assert facts["tuned"] > 0
    budget = read_manifest(folder / "rounded").budget_bytes
    assert said["tune-rounded"]["peak_bytes"] <= budget
    assert said["tuned"]["peak_bytes"] <= facts["peak_bytes"] <= budget
    assert np.array_equal(_answer(arrays, "tuned"), _answer(arrays, "untuned"))


@pytest.mark.parametrize("network", SHAPES)
def test_the_highest_level_changes_what_the_page_says(network: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """docs/arm.md lists the operators; if this fails, a new onnxruntime has other layouts: correct it and speed.md."""
    before, after = (_operators(arrays[f"{network}-levels/{level}.onnx"].tobytes()) for level in ("EXTENDED", "ALL"))
    assert after - before == CHANGES[network]
    assert np.array_equal(arrays[f"{network}-levels/EXTENDED"], arrays[f"{network}-levels/ALL"])


def _operators(model: bytes) -> Counter[str]:
    """Return how often a model has each operator."""
    return Counter(map(_operator, onnx.load_model_from_string(model).graph.node))


def _operator(node: onnx.NodeProto) -> str:
    name = f"{node.domain}.{node.op_type}".lstrip(".")
    return f"{name}, channels last" if any(each.name == "channels_last" and each.i for each in node.attribute) else name


def _answer_here(folder: Path, network: str) -> np.ndarray[Any, Any]:
    """Return the whole model's output on this machine.

    AVX2's 8-bit products overflow unless onnxruntime is told to be precise; those of a board do not.
    """
    options = session_options(2)
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(folder / f"{network}.onnx", options, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: np.load(folder / f"{network}.npy")})[0]
    assert isinstance(output, np.ndarray)
    return output
