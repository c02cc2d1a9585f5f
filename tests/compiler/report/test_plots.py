"""``hypsc plot``: pictures of what was worked out, the same bytes every time."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyps.compiler.atomic_files import write_files
from hyps.compiler.errors import OptionError, WriteError
from hyps.compiler.report.facts import Facts, Layer, Timeline
from hyps.compiler.report.plots import MOST_COLUMNS, Style, plots
from hyps.compiler.report.run_profile import Measurements, StepRun, read_profile
from hyps.runtime.units import megabytes
from tests.compiler.conftest import Bundle, Command
from tests.compiler.onnxes import classifier, saved


def drawn(layers: int, *, name: str = "layer") -> Facts:
    """A model of so many layers, each putting out a MB more than the one before."""
    ones = (1_000_000,) * layers
    line = Timeline(widths=(1,) * layers, process_bytes=ones, weight_bytes=ones, beside_bytes=ones, activation_bytes=ones)
    return Facts(
        title=name,
        kind="model",
        pairs=(),
        budget_bytes=3_000_000,
        whole=line,
        planned=None,
        layers=tuple(Layer(name=f"{name}{index}", output_bytes=10**6 * (index + 1)) for index in range(layers)),
        types=(),
        splits=(),
        steps=(),
        changes=(),
        nodes=(),
        edges=(),
    )


def words(svg: bytes) -> list[str]:
    """The text in a picture."""
    root = ElementTree.fromstring(svg)
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_names_and_split_points_of_a_classifier(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    done = hypsc("plot", path, "--memory", "70MB", "-o", tmp_path / "plots")
    assert (done.returncode, done.stderr) == (0, "")
    files = (tmp_path / "plots" / f"{name}.svg" for name in ("memory", "layers"))
    assert done.stdout.splitlines() == [f"wrote {file}, {megabytes(file.stat().st_size)}" for file in files]
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {"memory.svg", "layers.svg"}
    memory, layers = (words((tmp_path / "plots" / f"{name}.svg").read_bytes()) for name in ("memory", "layers"))
    assert {"budget, 70.0 MB", "weights", "activations"} <= {*memory}
    found = json.loads(hypsc("analyze", path, "--memory", "70MB", "--json").stdout)
    assert f"whole model: peak {found['whole_peak_bytes'] / 1e6:.1f} MB" in memory
    assert any(text.startswith("bundle: peak") for text in memory)
    assert {row["name"] for row in found["operators"]} <= {*layers}
    assert "optional split point" in layers


def test_every_split_point_is_marked(hypsc: Command, tmp_path: Path) -> None:
    """Two poolings: two marks, at the height of what crosses."""
    path = saved(tmp_path / "net.onnx", classifier())
    assert hypsc("plot", path, "-o", tmp_path / "plots").returncode == 0
    text = (tmp_path / "plots" / "layers.svg").read_text()
    marks = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"[^>]*fill: #2e9e62', text)
    assert len(marks) == 2 + 1  # and that of the legend


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_two_runs_give_the_same_bytes(hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, kind: str) -> None:
    for name in ("one", "two"):
        assert hypsc("plot", classifier_bundle.folder, "-o", tmp_path / name, "--format", kind).returncode == 0
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.suffix == f".{kind}"
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
        if kind == "png":
            with Image.open(file) as image:
                image.verify()
                assert image.width >= 1_000
        else:
            assert ElementTree.fromstring(file.read_bytes()).tag.endswith("svg")
            assert b"<dc:date>" not in file.read_bytes()


def test_nothing_is_overwritten_without_force(hypsc: Command, tmp_path: Path, classifier_bundle: Bundle) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "layers.svg").write_text("mine")
    done = hypsc("plot", classifier_bundle.folder, "-o", folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert [file.name for file in folder.iterdir()] == ["layers.svg"]
    assert (folder / "layers.svg").read_text() == "mine"
    assert hypsc("plot", classifier_bundle.folder, "-o", folder, "--force").returncode == 0
    assert {file.name for file in folder.iterdir()} == {"memory.svg", "layers.svg"}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_files(tmp_path / "new", {"a.svg": b"a", "no/b.svg": b"b"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["$x^2$", "$\\frac{$", "</text><b>", 'a"b', "line\nend\x1b[31m", "层", "x" * 300, "\ud800"])
def test_names_are_text(name: str) -> None:
    found = plots(drawn(3, name=name), None)
    svg = found["layers"](Style(), "svg")
    text = [word for word in words(svg) if word.endswith("1")]
    assert len(text) == 1
    assert len(text[0]) <= 22
    if name.isprintable() and len(name) < 20:
        assert text == [f"{name}1"]
    assert found["layers"](Style(), "png").startswith(b"\x89PNG")


def test_more_layers_than_columns_keep_the_largest() -> None:
    small, large = (plots(drawn(count), None)["layers"](Style(), "svg") for count in (MOST_COLUMNS, 20 * MOST_COLUMNS))
    assert len(large) < 1.5 * len(small)


def entry(name: str, **figures: Any) -> dict[str, Any]:
    return {"name": name, "load_s": 0.1, "run_s": 0.2, "read_bytes": 10, "resident_bytes": 100} | figures


def test_profiles_of_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    runs = [entry("a"), entry("a", run_s=0.4, resident_bytes=300), entry("a", run_s=0.3), entry("b")]
    path.write_text(json.dumps(runs))
    found = read_profile(path, ["a", "b", "c"])
    middle = StepRun(name="a", load_s=0.1, run_s=0.3, read_bytes=10, resident_bytes=300)
    assert found == Measurements(runs=3, steps={"a": middle, "b": StepRun(**entry("b"))})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no profile"),
        ("{}", "no profile"),
        ('[{"name": "a"}]', "load_s"),
        (json.dumps([entry("a", run_s=-1)]), "run_s"),
        ("[]", "no step"),
        (json.dumps([entry("z")]), "'z'"),
        ("[" * 100_000, "no profile"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(OptionError, match=says):
        read_profile(tmp_path / "profile.json", ["a"])
