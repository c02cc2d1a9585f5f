"""Compare the figures of ``hypsc analyze`` with figures worked out by hand and by onnx."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.compiler.conftest import Command, Compile
from tests.compiler.onnxes import classifier, linear, model, node, saved, value, weight, wide_gemm


def analysed(hypsc: Command, path: Path, *options: object) -> Any:
    done = hypsc("analyze", path, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_figures_of_a_classifier(hypsc: Command, tmp_path: Path) -> None:
    """Image [1, 3, 16, 16]; convolutions of 3x3 with 32 and 64 filters, each pooled to half; Gemms 1024x300 and 300x10."""
    path = saved(tmp_path / "net.onnx", classifier())
    found = analysed(hypsc, path)
    rows = {row["name"]: row for row in found["operators"]}
    conv = rows["conv1"]
    assert (conv["op_type"], conv["shape"]) == ("Conv", [1, 32, 16, 16])
    assert conv["parameters"] == 32 * 3 * 3 * 3 + 32
    assert conv["weight_bytes"] == 4 * conv["parameters"]
    assert conv["activation_bytes"] == 4 * 32 * 16 * 16
    assert conv["multiply_adds"] == 32 * 16 * 16 * 3 * 3 * 3
    assert rows["conv2"]["multiply_adds"] == 64 * 8 * 8 * 32 * 3 * 3
    image, first, pooled = 4 * 3 * 16 * 16, 4 * 32 * 16 * 16, 4 * 32 * 8 * 8
    assert rows["pool1"]["live_bytes"] == image + first + pooled
    assert rows["relu1"]["live_bytes"] == image + first  # in place
    initializers = onnx.load(path).graph.initializer
    assert found["parameters"] == sum(numpy_helper.to_array(tensor).size for tensor in initializers)
    assert sum(row["multiply_adds"] for row in found["types"]) == found["multiply_adds"]
    assert sum(row["operators"] for row in found["types"]) == len(rows)
    crossing = found["crossing_bytes"]
    assert (len(crossing), crossing[0], crossing[-1]) == (len(rows) + 1, image, 4 * 10)
    points = found["splits"]
    assert [(point["behind"], point["mandatory"]) for point in points] == [("pool1", False), ("pool2", False)]
    assert [point["crossing_bytes"] for point in points] == [pooled, 4 * 64 * 4 * 4]


def test_the_models_input_stays_where_an_operator_works_in_place(hypsc: Command, tmp_path: Path) -> None:
    """The caller holds the input, so a Relu of it needs a second buffer; only the next Relu reuses one."""
    proto = model([node("Relu", "x", "a"), node("Relu", "a", "y")], [value("x", 1, 9_000_000)], [value("y", 1, 9_000_000)])
    found = analysed(hypsc, saved(tmp_path / "net.onnx", proto))
    assert [row["live_bytes"] for row in found["operators"]] == [72_000_000, 72_000_000]
    assert found["process_bytes"] + found["resident_bytes"] + 72_000_000 == found["whole_peak_bytes"]


def test_the_smallest_budget_works_and_less_does_not(compiled: Compile, hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", linear(weight("w", 200, 40_000)))
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 40_000
    onnx.save(proto, path)
    least = analysed(hypsc, path, "--threads", "2")["smallest_budget_bytes"]
    assert compiled(path, budget_bytes=least).compiled.plan.peak_bytes <= least
    done = hypsc("compile", path, "--memory", f"{least / 1e6 - 0.2}MB", "--threads", "2", "-o", tmp_path / "less")
    assert done.returncode == 2


def test_the_smallest_budget_is_the_same_whatever_the_budget(compiled: Compile, hypsc: Command, tmp_path: Path) -> None:
    """Only tiles make convolutions of large pictures small: a plan without tiles needs far more."""
    proto = model(
        [node("Conv", "x v", "a", kernel_shape=[3, 3], pads=[1] * 4), node("Conv", "a w", "y", kernel_shape=[3, 3])],
        [value("x", 1, 3, 256, 256)],
        [value("y", 1, 1, 254, 254)],
        [weight("v", 64, 3, 3, 3), weight("w", 1, 64, 3, 3)],
    )
    path = saved(tmp_path / "net.onnx", proto)
    least = {analysed(hypsc, path, *options)["smallest_budget_bytes"] for options in ([], ["--memory", "200MB"])}
    assert len(least) == 1
    made = compiled(path, budget_bytes=(budget := least.pop()))
    assert any("tile" in change.what for change in made.compiled.plan.changes)
    assert made.compiled.plan.peak_bytes <= budget


def test_mandatory_cuts_stand_around_what_is_too_big(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", wide_gemm())
    points = analysed(hypsc, path, "--memory", "90MB")["splits"]
    assert [(point["behind"], point["mandatory"]) for point in points] == [("a", True), ("b", True)]
    assert all("64.0 MB of weights" in point["reason"] for point in points)
    assert analysed(hypsc, path, "--memory", "300MB")["splits"] == []


def test_sorted_and_cut_off(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    everything = analysed(hypsc, path)
    for sort, figure in (
        ("weights", "weight_bytes"),
        ("macs", "multiply_adds"),
        ("live", "live_bytes"),
        ("alone", "alone_bytes"),
    ):
        rows = analysed(hypsc, path, "--sort", sort, "--top", "3")["operators"]
        whole = everything["operators"]
        assert [row[figure] for row in rows] == sorted((row[figure] for row in whole), reverse=True)[:3]


def test_csv_is_the_same(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    rows = analysed(hypsc, path, "--csv", tmp_path / "rows.csv")["operators"]
    with (tmp_path / "rows.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [row["name"] for row in read] == [row["name"] for row in rows]
    assert [int(row["multiply_adds"]) for row in read] == [row["multiply_adds"] for row in rows]
    assert read[0]["shape"] == "1x32x16x16"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "rows.csv"]


@pytest.mark.parametrize(
    ("place", "says"), [("no/rows.csv", "does not exist"), (".", "folder"), ("/dev/null", "not a regular file")]
)
def test_where_no_csv_can_be(hypsc_here: Command, tmp_path: Path, place: str, says: str) -> None:
    """It is refused before any work is done."""
    done = hypsc_here("analyze", tmp_path / "absent.onnx", "--csv", place)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
    assert done.stderr.endswith("with --csv\n")


def test_a_csv_file_is_written_whole_or_not_at_all(hypsc: Command, tmp_path: Path) -> None:
    """A link is followed to the file, which is replaced; a reader that has it open still reads the old contents."""
    path = saved(tmp_path / "net.onnx", classifier())
    (tmp_path / "rows.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("rows.csv")
    with (tmp_path / "rows.csv").open() as reader:
        assert hypsc("analyze", path, "--csv", tmp_path / "link.csv").returncode == 0
        assert reader.read() == "before"
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "rows.csv").read_text().startswith("name,")


def test_a_table_for_people(hypsc: Command, tmp_path: Path) -> None:
    done = hypsc("analyze", saved(tmp_path / "net.onnx", classifier()), "--top", "2", "--memory", "100MB")
    assert (done.returncode, done.stderr) == (0, "")
    assert "more operators" in done.stdout
    assert "cut after" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_line_an_operator_whose_name_loses_its_middle_for_want_of_room(hypsc: Command, tmp_path: Path) -> None:
    """A line end in a name is escaped."""
    name = "stage/" * 20 + "end\nof it"
    proto = model(
        [node("Relu", "x", "a"), helper.make_node("Relu", ["a"], ["y"], name)], [value("x", 1, 4)], [value("y", 1, 4)]
    )
    path = saved(tmp_path / "net.onnx", proto)
    for columns in ("80", "100", "300"):
        lines = hypsc("analyze", path, env={**os.environ, "COLUMNS": columns}).stdout.splitlines()
        assert max(map(len, lines)) <= int(columns)
        shown = lines[2].partition("  Relu ")[0].rstrip()
        begun, middle, ended = shown.partition("…")
        assert name.replace("\n", "\\n").startswith(begun)
        assert name.replace("\n", "\\n").endswith(ended)
        assert bool(middle) == (columns != "300")
        assert len(shown) >= 18


@pytest.mark.parametrize("content", [b"", b"no model", np.zeros(4).tobytes()])
def test_what_is_no_model_is_refused_in_a_line(hypsc: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    done = hypsc("analyze", tmp_path / "net.onnx")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
