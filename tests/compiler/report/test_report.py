"""Check the contents of ``hypsc report``'s page in a real browser, for models, plans and bundles."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import onnx
import pytest
from playwright.sync_api import Page

from hyps.runtime.suggestions import install
from tests.compiler.conftest import Bundle, Command
from tests.compiler.onnxes import classifier, model, node, saved, value, wide_gemm
from tests.compiler.report.conftest import Look

#: Names that would break a page if they were taken for markup.
HOSTILE = ["</script><b>bold</b>", "quote\"'`$x", "line\nend\u2028", "n" * 300, "&lt;img src=x onerror=alert(1)>"]


def table(page: Page, name: str) -> list[list[str]]:
    """Return the cells of a table's rows."""
    rows = page.locator(f"#table-{name} tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def mb(nbytes: int) -> str:
    """Return a size as the page writes it."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e6:.3f} MB"


def test_a_model_without_a_plan(hypsc: Command, tmp_path: Path, look: Look) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    done = hypsc("report", path, "-o", tmp_path / "net.html")
    assert (done.returncode, done.stderr) == (0, "")
    page = tmp_path / "net.html"
    assert done.stdout == f"wrote {page}, {mb(page.stat().st_size)}\n"
    found = json.loads(hypsc("analyze", path, "--json").stdout)

    def see(page: Page) -> None:
        assert page.title() == "net - HyPS report"
        assert page.locator(".node").count() == len(found["operators"])
        assert page.locator(".node.bare").count() == len(found["operators"])
        assert table(page, "splits") == [
            [point["behind"], "optional", mb(point["crossing_bytes"]), point["reason"]] for point in found["splits"]
        ]
        assert [row[:3] for row in table(page, "types")] == [
            [row["op_type"], str(row["operators"]), f"{row['parameters']:,}" if row["parameters"] else ""]
            for row in found["types"]
        ]
        assert page.locator("#table-partitions").count() == 0
        facts = page.locator("header").inner_text()
        assert f"{found['parameters']:,}" in facts
        assert mb(found["whole_peak_bytes"]) in facts
        assert page.locator("#plot-layers .broad text").filter(has_text="pool1").count() == 1

    look(tmp_path / "net.html", see)


def test_a_model_with_its_plan(hypsc: Command, tmp_path: Path, look: Look) -> None:
    """A Gemm too large for the budget is split: its shards are marked in the graph and in the tables."""
    path = saved(tmp_path / "net.onnx", wide_gemm())
    assert hypsc("report", path, "--memory", "90MB", "-o", tmp_path / "net.html").returncode == 0
    done = hypsc("compile", path, "--memory", "90MB", "-o", tmp_path / "bundle", "--json")
    plan = json.loads(done.stdout)

    def see(page: Page) -> None:
        rows = table(page, "partitions")
        assert [(row[0], row[1], row[3], row[7]) for row in rows] == [
            (part["name"], ": ".join(part["reason"].values()), mb(part["weight_bytes"]), mb(part["peak_bytes"]))
            for part in plan["partitions"]
        ]
        operators = [name for part in plan["partitions"] for name in part["operators"]]
        assert page.locator(".node").count() == len(operators)
        parts = {text.split()[0] for text in page.locator(".node .part").all_text_contents()}
        assert parts == {f"P{index}" for index in range(len(rows))}
        shards = [name for name in operators if "/shard" in name]
        assert page.locator(".node.shard").count() == len(shards) > 1
        assert {kind for _, kind, *_ in table(page, "splits")} == {"mandatory"}
        assert len(table(page, "changes")) == len(plan["changes"])

    look(tmp_path / "net.html", see)


def test_a_bundle_with_a_profile(hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, look: Look) -> None:
    steps = classifier_bundle.compiled.manifest.steps
    runs = [
        {
            **dict.fromkeys(("name", "wait_s", "open_s", "run_s", "copy_s", "close_s", "hash_s"), 0.125),
            "minor_faults": 1000,
            "major_faults": 1,
            "read_bytes": 7_000_000,
            "name": step.name,
            "wait_s": 0.5,
            "run_s": 0.25,
            "resident_bytes": 41_000_000 + index,
        }
        for index, step in enumerate(steps[1:])
    ]
    (tmp_path / "profile.json").write_text(json.dumps(runs))
    page_path = tmp_path / "bundle.html"
    done = hypsc("report", classifier_bundle.folder, "--profile", tmp_path / "profile.json", "-o", page_path)
    assert (done.returncode, done.stderr) == (0, "")

    def see(page: Page) -> None:
        assert page.locator(".node").count() == len(steps)
        rows = table(page, "partitions")
        assert [row[0] for row in rows] == [step.name for step in steps]
        assert [row[7] for row in rows] == [mb(step.peak_bytes) for step in steps]
        assert rows[0][9:18] == ["-"] * 9
        assert rows[1][9:18] == ["41.0 MB", "500.0 ms", "125.0 ms", "250.0 ms", *["125.0 ms"] * 3, "1,001", "7.0 MB"]
        assert page.locator("#plot-measured .broad text").filter(has_text="measured, resident").count() == 1

    look(page_path, see)


def test_hostile_names_are_text(hypsc: Command, tmp_path: Path, look: Look) -> None:
    names = ["x", *HOSTILE]
    nodes = [onnx.helper.make_node("Relu", [a], [b], b) for a, b in itertools.pairwise(names)]
    proto = model(nodes, [value("x", 1, 4)], [value(names[-1], 1, 4)])
    path = saved(tmp_path / "<i>net.onnx", proto)
    assert hypsc("report", path, "--memory", "80MB", "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        assert page.locator("b, i, img").count() == 0
        assert page.locator("h1").inner_text() == "<i>net"
        assert page.locator(".node").count() == len(HOSTILE)
        titles = page.locator(".node title").all_text_contents()
        assert titles[0].startswith("</script><b>bold</b> (Relu)")
        assert titles[1].startswith("quote\"'`$x (Relu)")
        assert titles[2].startswith("line\\nend\\u2028 (Relu)")
        page.locator(".node").first.click()
        assert page.locator("#detail h3").inner_text() == "</script><b>bold</b>"

    look(tmp_path / "net.html", see)
    assert "n" * 200 not in (tmp_path / "net.html").read_text()


def test_thousands_of_operators_are_drawn_in_runs(hypsc: Command, tmp_path: Path, look: Look) -> None:
    names = ["x", *(f"relu{index}" for index in range(4_000))]
    proto = model([node("Relu", a, b) for a, b in itertools.pairwise(names)], [value("x", 1, 4)], [value(names[-1], 1, 4)])
    path = saved(tmp_path / "net.onnx", proto)
    assert hypsc("report", path, "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        assert page.locator(".node").count() == 1_000
        assert "4,000 operators, more than 1,500: drawn as 1,000 runs" in page.locator("#graph-section").inner_text()
        page.fill("#find", "relu2001")
        page.press("#find", "Enter")
        assert page.locator("#detail h3").inner_text() == "relu2000 … relu2003"

    look(tmp_path / "net.html", see)


def test_two_runs_give_the_same_bytes_and_none_overwrites(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    for name in ("one.html", "two.html"):
        assert hypsc("report", path, "--memory", "70MB", "-o", tmp_path / name).returncode == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert not re.search(r"(src|href)=.?(http|//)|@import", (tmp_path / "one.html").read_text())
    done = hypsc("report", path, "-o", tmp_path / "one.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert hypsc("report", path, "-o", tmp_path / "one.html", "--force").returncode == 0
    assert (tmp_path / "one.html").read_bytes() != (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("command", ["report", "plot"])
@pytest.mark.parametrize("content", [b"", b"no model", bytes(100)])
def test_what_is_no_model_leaves_nothing(hypsc: Command, tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    done = hypsc(command, tmp_path / "net.onnx", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--memory", "70MB"], "--memory is for models"),
        (["--threads", "2"], "--threads is for models"),
        (["--custom-ops", "operators.so"], "--custom-ops is for models"),
        (["-o", "/dev/null", "--force"], "is not a regular file"),
        (["--profile", "absent.json"], "cannot read absent.json"),
        (["-o", "no/such/folder.html"], "does not exist"),
        (["-o", "."], "is a folder"),
    ],
)
def test_wrong_options(hypsc_here: Command, classifier_bundle: Bundle, options: list[str], says: str) -> None:
    done = hypsc_here("report", classifier_bundle.folder, *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_budget_that_is_too_small(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    done = hypsc("report", path, "--memory", "40MB", "-o", tmp_path / "net.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "smallest budget" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("command", ["report", "plot"])
def test_without_matplotlib(
    hypsc_here: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier_bundle: Bundle, command: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("axes", "html", "memory_plot", "plots", "step_plots"):
        monkeypatch.delitem(sys.modules, f"hyps.compiler.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = hypsc_here(command, classifier_bundle.folder, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"hypsc: drawing needs matplotlib, which is not installed; {install('report')}\n"
    assert list(tmp_path.iterdir()) == []
