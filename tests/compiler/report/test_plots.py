"""Check ``hypsc plot``'s files: their text, their marks, their scale, and equal bytes from equal facts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyps.compiler.atomic_files import write_files
from hyps.compiler.errors import OptionError, WriteError
from hyps.compiler.report.axes import MOST_COLUMNS
from hyps.compiler.report.facts import Facts, Layer, StepFacts, Timeline
from hyps.compiler.report.plots import Style, plots
from hyps.compiler.report.run_profile import Measurements, StepRun, read_profile
from hyps.runtime.units import megabytes
from tests.compiler.conftest import Bundle, Command
from tests.compiler.onnxes import classifier, saved


def timeline(steps: int, nbytes: int) -> Timeline:
    """Return a timeline in which each of the four parts of the memory has this size."""
    each = (nbytes,) * steps
    return Timeline(widths=(1,) * steps, process_bytes=each, weight_bytes=each, other_bytes=each, activation_bytes=each)


def facts_of(layers: int, *, name: str = "layer") -> Facts:
    """Return a model of this many layers; each output is a MB larger than the one before."""
    return Facts(
        title=name,
        kind="model",
        headline="",
        pairs=(),
        budget_bytes=3_000_000,
        whole=timeline(layers, 1_000_000),
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
    """Return the text in a picture."""
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
    assert {"budget, 70.0 MB", "weights in use", "activations"} <= {*memory}
    found = json.loads(hypsc("analyze", path, "--memory", "70MB", "--json").stdout)
    assert f"whole model: peak {found['whole_peak_bytes'] / 1e6:.1f} MB" in memory
    assert any(text.startswith("bundle: peak") for text in memory)
    assert {row["name"] for row in found["operators"]} <= {*layers}
    assert any(text.startswith("optional split point") for text in layers)


def test_every_split_point_is_marked(hypsc: Command, tmp_path: Path) -> None:
    """Two poolings give two marks."""
    path = saved(tmp_path / "net.onnx", classifier())
    assert hypsc("plot", path, "-o", tmp_path / "plots").returncode == 0
    text = (tmp_path / "plots" / "layers.svg").read_text()
    marks = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"[^>]*fill: #2e9e62', text)
    assert len(marks) == 2 + 1  # and the legend's


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
    found = plots(facts_of(3, name=name), None)
    svg = found["layers"](Style(), "svg")
    text = [word for word in words(svg) if word.endswith("1")]
    assert len(text) == 1
    assert len(text[0]) <= 22
    if name.isprintable() and len(name) < 20:
        assert text == [f"{name}1"]
    assert found["layers"](Style(), "png").startswith(b"\x89PNG")


def test_more_layers_than_columns_keep_the_largest() -> None:
    small, large = (plots(facts_of(count), None)["layers"](Style(), "svg") for count in (MOST_COLUMNS, 20 * MOST_COLUMNS))
    assert len(large) < 1.5 * len(small)


def column_heights(svg: bytes, panel: int) -> tuple[float, float]:
    """Return the top of the columns and the bottom of a panel of the memory plot, in units of the picture."""
    axes = ElementTree.fromstring(svg).find(f".//*[@id='axes_{panel}']")
    assert axes is not None
    paths = [path for path in axes.iter("{http://www.w3.org/2000/svg}path") if path.get("clip-path")]
    filled = [str(path.get("d")) for path in paths if "fill: none" not in str(path.get("style"))]
    heights = [float(y) for path in filled for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    return min(heights), max(heights)


def test_whole_model_and_bundle_have_the_same_scale() -> None:
    """The bundle has a quarter of the whole model's memory: its columns have a quarter of the height."""
    facts = replace(facts_of(4), whole=timeline(4, 4_000_000), planned=timeline(4, 1_000_000))
    svg = plots(facts, None)["memory"](Style(), "svg")
    (whole_top, whole_bottom), (top, bottom) = (column_heights(svg, panel) for panel in (1, 2))
    assert whole_bottom == bottom
    assert bottom - top == pytest.approx((whole_bottom - whole_top) / 4, rel=0.01)


def test_no_plot_is_a_single_dot() -> None:
    """One layer has no plot of layers; one measurement is a line across its column, with its value."""
    step = StepFacts(
        name="00-all",
        operators=1,
        weight_bytes=1,
        activation_bytes=1,
        pinned_bytes=0,
        ahead_bytes=0,
        peak_bytes=60_000_000,
        leaving_bytes=0,
        reason="first",
    )
    measured = Measurements(runs=1, steps={"00-all": StepRun(**entry("00-all", resident_bytes=55_500_000))})
    facts = replace(facts_of(1), steps=(step,))
    drawn = plots(facts, measured)
    assert list(drawn) == ["memory", "measured"]
    svg = drawn["measured"](Style(), "svg")
    assert "55.5" in words(svg)
    assert b"<use" not in re.sub(rb'<g id="(x|y)tick_.*?</g>\s*</g>\s*</g>', b"", svg, flags=re.DOTALL)


def entry(name: str, **figures: Any) -> dict[str, Any]:
    times = {"wait_s": 0.1, "open_s": 0.1, "run_s": 0.2, "copy_s": 0.0, "close_s": 0.0, "hash_s": 0.0}
    counts = {"minor_faults": 5, "major_faults": 0, "read_bytes": 10, "resident_bytes": 100}
    return {"name": name} | times | counts | figures


def test_profiles_of_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    runs = [entry("a"), entry("a", run_s=0.4, resident_bytes=300), entry("a", run_s=0.3), entry("b")]
    path.write_text(json.dumps(runs))
    found = read_profile(path, ["a", "b", "c"])
    middle = StepRun(**entry("a", run_s=0.3, resident_bytes=300))
    assert found == Measurements(runs=3, steps={"a": middle, "b": StepRun(**entry("b"))})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no profile"),
        ("{}", "no profile"),
        ('[{"name": "a"}]', "wait_s"),
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
