"""Compare a bundle's report of the whole model, from ``report.json``, with the model's own report."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from hyps.compiler.bundle_writer.model_report import read_model_report
from hyps.compiler.jobs import Compilation
from hyps.compiler.report.bundle_facts import bundle_facts
from hyps.compiler.report.facts import Facts
from hyps.compiler.report.model_facts import model_facts
from hyps.compiler.report.plots import Style, plots
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME
from hyps.runtime.bundle.report_file import REPORT_LIMIT_BYTES
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.onnxes import classifier, model, node, value, weight

SHARDED = model(
    [node("Relu", "x", "a"), node("Gemm", "a w", "b", transB=1), node("Relu", "b", "y")],
    [value("x", 1, 4_000)],
    [value("y", 1, 4_000)],
    [weight("w", 4_000, 4_000)],
)


def facts_of(folder: Path) -> Facts:
    """Return the facts of a bundle's report."""
    return bundle_facts(read_manifest(folder), read_model_report(folder))


@pytest.mark.parametrize(
    ("proto", "budget_bytes", "split"), [(classifier(), 62_000_000, "pooling"), (SHARDED, 90_000_000, "auto")]
)
def test_a_bundle_tells_what_its_model_does(compiled: Compile, proto: ModelProto, budget_bytes: int, split: Any) -> None:
    made = compiled(proto, budget_bytes=budget_bytes, split=split)
    request = Request(budget_bytes=budget_bytes, split=split, threads=2, tier="lean")  # as `compiled`
    expected = model_facts(Compilation(model=made.model, output=Path(), request=request, target_name="test"))
    found = facts_of(made.folder)
    for what in ("whole", "planned", "layers", "types", "splits", "changes"):
        assert getattr(found, what) == getattr(expected, what), what
    assert found.whole
    assert found.whole.peak_bytes == made.compiled.plan.whole_peak_bytes
    assert [layer.name for layer in found.layers if layer.cut]
    assert {layer.split for layer in found.layers} - {""}
    pairs = dict(found.pairs)
    assert found.headline == expected.headline
    for name in ("answers", "smallest budget", "time", "model", "operators"):
        assert pairs[name] == dict(expected.pairs)[name]


def test_both_curves_and_the_split_points_are_drawn(classifier_bundle: Bundle) -> None:
    drawn = plots(facts_of(classifier_bundle.folder), None)
    memory, layers = (drawn[name](Style(), "svg").decode() for name in ("memory", "layers"))
    assert "whole model: peak" in memory
    assert "bundle: peak" in memory
    assert "budget, 1,000.0 MB" in memory
    assert "optional split point" in layers
    assert "cut of the plan" in layers
    assert "output of the layer" in layers


def test_a_bundle_without_it_runs_and_reports_and_says_what_is_missing(
    classifier_bundle: Bundle, tmp_path: Path, hypsc: Command, hyps_run: Command
) -> None:
    folder = Path(shutil.copytree(classifier_bundle.folder, tmp_path / "bundle"))
    (folder / REPORT_NAME).unlink()
    done = hypsc("report", folder, "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "whole model: peak" not in page
    assert "The whole model is not shown" in page
    assert "compile it again" in page
    assert "output of the step" in page
    assert hypsc("inspect", folder).returncode == 0
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert hyps_run(folder, tmp_path / "x.npy").returncode == 0


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the file and correct its hash."""

    def act(path: Path) -> None:
        import hashlib

        document = json.loads(path.read_bytes())
        change(document["whole"])
        body = json.dumps(document["whole"]).encode()
        digest = hashlib.sha256((path.parent / MANIFEST_NAME).read_bytes() + body).hexdigest()
        path.write_bytes(b'{"version": 1, "sha256": "%b", "whole": %b}' % (digest.encode(), body))

    return act


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "truncated", id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), "truncated", id="cut off"),
        pytest.param(lambda path: path.write_bytes(b"[" * 100_000), "Expected `object`", id="deep"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes().replace(b"pool1", b"pool9")), "was changed", id="bits"),
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2')), "version", id="version"
        ),
        pytest.param(lambda path: os.truncate(path, REPORT_LIMIT_BYTES + 1), "at most", id="huge"),
        pytest.param(linked, "not a regular file", id="link"),
        pytest.param(piped, "not a regular file", id="pipe"),
        pytest.param(rewritten(lambda whole: whole["names"].append("more")), "do not match", id="more names"),
        pytest.param(rewritten(lambda whole: whole["live_bytes"].pop()), "do not match", id="fewer bytes"),
        pytest.param(rewritten(lambda whole: whole["splits"][0].update(position=99)), "do not match", id="split beyond"),
        pytest.param(rewritten(lambda whole: whole["splits"][0].update(position=0)), "position", id="split before"),
        pytest.param(rewritten(lambda whole: whole.update(peak_bytes=-1)), "peak_bytes", id="negative"),
        pytest.param(rewritten(lambda whole: whole["live_bytes"].append(10**400)), "live_bytes", id="beyond all"),
        pytest.param(rewritten(lambda whole: whole.update(more=1)), "more", id="unknown field"),
        pytest.param(rewritten(lambda whole: whole.pop("types")), "types", id="missing field"),
    ],
)
def test_a_file_that_is_not_this_bundles_is_refused_in_a_line(
    classifier_bundle: Bundle, tmp_path: Path, hypsc_here: Command, change: Callable[[Path], None], says: str
) -> None:
    folder = Path(shutil.copytree(classifier_bundle.folder, tmp_path / "bundle"))
    change(folder / REPORT_NAME)
    done = hypsc_here("report", folder, "-o", tmp_path / "page.html")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
    assert "compile the model again, or remove the file" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_another_bundles_file_is_refused(compiled: Compile, classifier_bundle: Bundle, hypsc_here: Command) -> None:
    made = compiled(classifier(), budget_bytes=70_000_000)
    shutil.copy(classifier_bundle.folder / REPORT_NAME, made.folder)
    done = hypsc_here("plot", made.folder, "-o", "plots")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "belongs to another bundle" in done.stderr


@pytest.mark.regression
def test_ten_thousand_operators_take_less_than_a_megabyte(compiled: Compile) -> None:
    names = ["x", *(f"/model/encoder/layers.{index}/activation/Relu" for index in range(10_000))]
    nodes = [node("Relu", a, b) for a, b in itertools.pairwise(names)]
    made = compiled(model(nodes, [value("x", 1, 250_000)], [value(names[-1], 1, 250_000)]))
    assert 400_000 < (made.folder / REPORT_NAME).stat().st_size < 1_000_000
    whole = facts_of(made.folder).whole
    assert whole
    assert len(whole.widths) == 10_000
