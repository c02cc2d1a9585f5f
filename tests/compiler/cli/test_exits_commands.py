"""``hypsc exits`` as a user types it: record, fit and attach, and what is refused in one line with exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.conftest import Command
from tests.compiler.exits.networks import pictures, write_network
from tests.compiler.exits.recordings import drawn


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two hundred pictures with their classes."""
    images, classes = pictures(200)
    np.savez(tmp_path / "data.npz", x=images, y=classes)
    return tmp_path / "data.npz"


def test_record_then_fit(data: Path, tmp_path: Path, hypsc: Command) -> None:
    model, recorded = write_network(tmp_path / "net.onnx", exits=True), tmp_path / "r.npz"
    done = hypsc("exits", "record", model, "--data", data, "--preprocess", "cifar10", "-o", recorded)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^early +\d+\.\d\d% ", done.stdout, re.MULTILINE)
    assert "200 inputs, 3 classes" in done.stdout
    done = hypsc("exits", "fit", recorded, "--policy", "thresholds", "--beta", 4, "-o", tmp_path / "p.json", "--json")
    figures = json.loads(done.stdout)
    assert figures["fitted"]["inputs"] == 200
    assert sum(figures["fitted"]["shares"].values()) == pytest.approx(1)
    written = json.loads((tmp_path / "p.json").read_bytes())
    assert (written["kind"], written["exits"], len(written["thresholds"])) == ("thresholds", ["early", "late", "scores"], 2)


def test_a_guarantee_is_written_and_said(tmp_path: Path, hypsc: Command) -> None:
    (tmp_path / "r.npz").write_bytes(drawn(2000, 0).to_bytes())
    (tmp_path / "t.npz").write_bytes(drawn(500, 1).to_bytes())
    options = ("--policy", "guaranteed", "--max-loss", "3%", "--confidence", "90%", "--test", tmp_path / "t.npz")
    done = hypsc("exits", "fit", tmp_path / "r.npz", *options, "-o", tmp_path / "p.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"^threshold 0\.\d{3}: at most 3\.00% less accurate than the whole network, with 90% confidence$",
        done.stdout,
        re.MULTILINE,
    )
    assert "tested on 500" in done.stdout
    guarantee = json.loads((tmp_path / "p.json").read_bytes())["guarantee"]
    assert (guarantee["loss"], guarantee["confidence"], guarantee["samples"]) == (0.03, 0.9, 2000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "optimal"), "give either --beta or --beta-between"),
        (("--policy", "optimal", "--beta", "1", "--beta-between", "1"), "give either --beta or --beta-between"),
        (("--policy", "guaranteed", "--beta", "1"), "without a reward"),
        (("--policy", "optimal", "--beta", "1", "--max-loss", "1%"), "for thresholds and guaranteed"),
        (("--policy", "optimal", "--beta-between", "9"), "takes an exit from 1 to 3"),
        (("--policy", "dqn", "--beta", "1"), "is a .onnx file"),
        (("--policy", "guaranteed", "--max-loss", "much"), "'much' is no share"),
        (("--policy", "optimal", "--beta", "1", "--conditions", "missing.toml"), "cannot read missing.toml"),
        (("--policy", "optimal", "--beta", "1", "--class-weights", "missing.txt"), "cannot read missing.txt"),
    ],
)
def test_wrong_options_are_one_line(options: tuple[str, ...], message: str, tmp_path: Path, hypsc: Command) -> None:
    (tmp_path / "r.npz").write_bytes(drawn(50, 0).to_bytes())
    done = hypsc("exits", "fit", tmp_path / "r.npz", *options, "-o", tmp_path / "p.json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "joules = 1.0",
        "joules = -1.0\nseconds = 1.0",
        "joules = 1.0\nseconds = 1.0\nspeed = 2",
        "joules = 1.0\nseconds = 1.0\ndeadline = [2.0, 1.0]",
        "joules = 1.0\nseconds = nan",
        "joules = ",
    ],
)
def test_wrong_conditions_are_one_line(content: str, tmp_path: Path, hypsc: Command) -> None:
    (tmp_path / "r.npz").write_bytes(drawn(50, 0).to_bytes())
    (tmp_path / "c.toml").write_text(content)
    options = ("--policy", "optimal", "--beta", "1", "--conditions", tmp_path / "c.toml")
    done = hypsc("exits", "fit", tmp_path / "r.npz", *options, "-o", tmp_path / "p.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "c.toml" in done.stderr


def test_recorded_exits_of_another_model_are_refused(data: Path, tmp_path: Path, hypsc: Command) -> None:
    (tmp_path / "r.npz").write_bytes(drawn(50, 0).to_bytes())
    model = write_network(tmp_path / "net.onnx", exits=True)
    hypsc("exits", "record", model, "--data", data, "--preprocess", "cifar10", "-o", tmp_path / "t.npz")
    options = ("--policy", "optimal", "--beta", "1", "--test", tmp_path / "t.npz")
    done = hypsc("exits", "fit", tmp_path / "r.npz", *options, "-o", tmp_path / "p.json")
    assert done.returncode == 2
    assert "exits of another model" in done.stderr


def test_attach(data: Path, tmp_path: Path, hypsc: Command) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, of the extra 'exits', fits the heads")
    model = write_network(tmp_path / "net.onnx", exits=False)
    common = ("--data", data, "--preprocess", "cifar10", "-o", tmp_path / "e.onnx")
    done = hypsc("exits", "attach", model, *common)
    assert (done.returncode, done.stderr) == (
        2,
        "hypsc: give either --after with operators, or --propose with a number of exits\n",
    )
    done = hypsc("exits", "attach", model, "--after", "pool1,relu2", *common)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^exit1 +pool1 +\d+\.\d\d% +66\.6% +256$", done.stdout, re.MULTILINE), done.stdout
    done = hypsc("exits", "attach", model, "--after", "pool1", *common)
    assert (done.returncode, "replace it with --force" in done.stderr) == (2, True)
