"""Run ``hypsc`` as a user does: its output, its exit codes, and what an interrupted command leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from hyps.compiler.target_files import load_target, target_names
from hyps.models.catalogue import NETWORKS
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.library_memory import COSTLIEST, MARGIN_BYTES, MEASURED, library_memory
from hyps.runtime.units import megabytes
from tests.compiler.conftest import Bundle, Command, Compile, listing
from tests.compiler.onnxes import classifier, linear, model, node, saved, value, weight
from tests.waiting import PATIENCE_S, signal_while


def said(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line on stderr with which a command refused; it must have printed nothing else."""
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert re.fullmatch(r"hypsc: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


class TestCompile:
    """The summary of a compilation, as text and as data."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Save the classifier."""
        return saved(tmp_path / "m.onnx", classifier())

    def test_summary(self, path: Path, hypsc: Command, tmp_path: Path) -> None:
        folder = tmp_path / ("a rather long name of a folder, longer than a line" * 3)
        result = hypsc("compile", path, "--memory", "100MB", "--threads", "2", "--split", "pooling", "-o", folder)
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        facts = {line[:17].strip(): line[17:] for line in lines}
        manifest = read_manifest(folder)
        peak = max(step.peak_bytes for step in manifest.steps) / 1e6
        verdict = rf"m fits in 100\.0 MB: its peak is {peak:.1f} MB, the whole model's \d+\.\d MB \(both predicted\)"
        assert re.fullmatch(verdict, lines[0])
        assert facts["answers"] == "bit for bit the whole model's, under the same session options"
        assert facts["time"].startswith("about ")
        assert "s, estimated for one x86-64 core and storage of 80.0 MB/s" in facts["time"]
        pinned = sum(step.pinned_bytes for step in manifest.steps) / 1e6
        assert facts["read each time"] == f"nothing: all {pinned:.1f} MB of weights stay in memory"
        assert re.fullmatch(r"\d+\.\d MB", facts["smallest budget"])
        assert facts["model"] == "329,828 parameters, 1.3 MB of weights"
        assert facts["target"] == f"custom, 2 threads, onnxruntime up to {COSTLIEST}"
        assert facts["bundle"] == str(folder), "a path can be copied: it is not wrapped"
        table = lines.index(next(line for line in lines if line.startswith("steps ")))
        headings = ["steps", "weights", "read each time", "peak"]
        assert re.split("  +", lines[table]) == headings
        assert [line.split()[0] for line in lines[table + 1 :][:3]] == [step.name for step in manifest.steps]

    def test_the_next_commands_run_as_printed(
        self, path: Path, hypsc_here: Command, bin_folder: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "it's a bundle"
        lines = hypsc_here("compile", path, "--memory", "1GB", "-o", folder).stdout.splitlines()
        commands = [line.strip() for line in lines[lines.index("next:") + 1 :]]
        assert [shlex.split(command)[:2] for command in commands] == [
            ["hyps-run", str(folder)],
            ["hypsc", "report"],
            ["hypsc", "validate"],
        ]
        np.save(tmp_path / "input.npy", np.zeros((1, 3, 16, 16), np.float32))
        environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
        for command in commands:
            subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
        assert (tmp_path / "report.html").exists()

    def test_steps_and_reasons_are_for_who_asks(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        options = ("--memory", "100MB", "--split", "pooling", "-o", tmp_path / "b", "--steps", "-v")
        result = hypsc_here("compile", path, *options)
        heading = next(line for line in result.stdout.splitlines() if line.startswith("step "))
        assert re.split("  +", heading)[1:4] == ["operators", "weights", "activations"]
        assert re.split("  +", heading)[4:] == ["pinned", "read ahead", "process peak", "kept after"]
        assert result.stderr.count("optional: after pooling pool") == 2

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("rpizero2w", "on rpizero2w, estimated from its storage and the speed of one x86-64 core"),
            ("mine.toml", "on mine, estimated"),
        ],
    )
    def test_time_is_named_with_its_machine(
        self, target: str, words: str, path: Path, hypsc_here: Command, tmp_path: Path
    ) -> None:
        text = hypsc_here("targets", "show", "rpi3b").stdout.replace('name = "rpi3b"', 'name = "mine"')
        rates = "conv_macs_per_s = 9_000_000_000\ngemv_bytes_per_s = 2_500_000_000\n[sources]"
        (tmp_path / "mine.toml").write_text(text.replace("[sources]", rates))
        result = hypsc_here("compile", path, "--target", target, "-o", tmp_path / "b")
        assert re.search(rf"^time +about \S+ s {words}(;|$)", result.stdout.replace("\n" + " " * 17, " "), re.MULTILINE)

    def test_mandatory_split_is_explained(self, hypsc_here: Command, tmp_path: Path) -> None:
        weights = [weight("w", 1_600, 2_000)]
        gemm = model([node("Gemm", "x w", "y", "fc", transB=1)], [value("x", 1, 2_000)], [value("y", 1, 1_600)], weights)
        result = hypsc_here(
            "compile", saved(tmp_path / "m.onnx", gemm), "--memory", "58.6MB", "--split", "mandatory", "-o", tmp_path / "b"
        )
        assert result.returncode == 0, result.stderr
        assert re.search(r"^\d\d-\d\d  fc( in 5 shards, 12\.8 MB alone does not fit| holds)", result.stdout, re.MULTILINE)

    def test_json(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        folder = tmp_path / "b"
        result = hypsc_here("compile", path, "--target", "rpizero2w", "--split", "pooling", "-o", folder, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        data, manifest = json.loads(result.stdout), read_manifest(folder)
        target = load_target("rpizero2w")
        powers = {"idle_milliwatts": target.idle_milliwatts, "busy_milliwatts": target.busy_milliwatts}
        power = {**powers, "cores": target.cores, "error_milliwatts": None}
        assert data["target"] == {"name": "rpizero2w", "threads": target.cores, "onnxruntime": COSTLIEST, "power": power}
        assert data["budget_bytes"] == target.budget_bytes == manifest.budget_bytes
        assert data["model"]["sha256"] == manifest.model.sha256
        assert data["bundle"] == str(folder)
        assert (data["exact"], data["inexact_reason"], data["changes"]) == (True, None, [])
        assert data["peak_bytes"] == max(step.peak_bytes for step in manifest.steps) <= data["whole_peak_bytes"]
        assert data["smallest_budget_bytes"] <= data["whole_peak_bytes"]
        keys = ("name", "operators", "inputs", "outputs", "live", "weight_bytes", "activation_bytes", "peak_bytes")
        for part, step in zip(data["partitions"], manifest.steps, strict=True):
            for key in keys:
                found = getattr(step, key)
                assert part[key] == (list(found) if isinstance(found, tuple) else found)
            assert part["reason"] == msgspec.to_builtins(step.reason)

    def test_nothing_but_json_on_standard_output(self, hypsc: Command, tmp_path: Path) -> None:
        """onnx-graphsurgeon would warn on standard output of types that numpy lacks, when an operator is split."""
        nodes = [node("Gemm", "x w", "fc", transB=1), node("Cast", "fc", "half", to=16), node("Cast", "half", "y", to=1)]
        proto = model(nodes, [value("x", 1, 2_000)], [value("y", 1, 1_600)], [weight("w", 1_600, 2_000)])
        result = hypsc("compile", saved(tmp_path / "m.onnx", proto), "--memory", "65MB", "-o", tmp_path / "b", "--json")
        assert (result.returncode, result.stderr) == (0, "")
        assert len(json.loads(result.stdout)["changes"]) == 1

    def test_default_output(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        assert hypsc_here("compile", path, "--memory", "1GB").returncode == 0
        assert sorted(found.name for found in tmp_path.iterdir()) == ["bundle", "m.onnx"]
        assert "replace it with --force" in said(hypsc_here("compile", path, "--memory", "1GB"))
        assert hypsc_here("compile", path, "--memory", "1GB", "--force").returncode == 0

    def test_memory_within_a_target(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        result = hypsc_here("compile", path, "--target", "rpi3b", "--memory", "96MiB", "-o", tmp_path / "b", "--json")
        assert json.loads(result.stdout)["budget_bytes"] == 96 * 2**20
        refused = said(hypsc_here("compile", path, "--target", "rpi3b", "--memory", "2GB", "-o", tmp_path / "c"))
        assert "a budget of 2,000.0 MB is more than rpi3b has for one process, 822.0 MB; ask for less" in refused

    def test_target_of_ones_own(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        text = hypsc_here("targets", "show", "rpi3b").stdout.replace('name = "rpi3b"', 'name = "mine"')
        (tmp_path / "mine.toml").write_text(text.replace("cores = 4", "cores = 3"))
        result = hypsc_here("compile", path, "--target", tmp_path / "mine.toml", "-o", tmp_path / "b", "--json")
        found = json.loads(result.stdout)["target"]
        assert found.pop("power")["cores"] == 3
        assert found == {"name": "mine", "threads": 3, "onnxruntime": COSTLIEST}

    def test_a_plan_is_for_the_costliest_onnxruntime_or_the_one_named(
        self, path: Path, hypsc_here: Command, tmp_path: Path
    ) -> None:
        def alone_bytes(*options: object) -> int:
            result = hypsc_here("compile", path, "--memory", "1GB", "-o", tmp_path / "b", "--force", "--json", *options)
            named, manifest = str(options[1] if options else COSTLIEST), read_manifest(tmp_path / "b")
            assert named.startswith(manifest.target.onnxruntime)
            assert json.loads(result.stdout)["target"]["onnxruntime"] == manifest.target.onnxruntime
            return manifest.steps[0].alone_bytes

        usual = alone_bytes()
        for each in MEASURED:
            less = library_memory(COSTLIEST).process_bytes - each.process_bytes
            assert usual - alone_bytes("--onnxruntime", f"{each.version}.2") == less
        assert alone_bytes("--onnxruntime", "1.99.0") == usual + MARGIN_BYTES

    def test_analysis_for_the_c_interface_names_the_budget_of_a_refusal(
        self, path: Path, hypsc_here: Command, tmp_path: Path
    ) -> None:
        analysis = hypsc_here("analyze", path, "--interface", "c")
        found = re.search(r"smallest budget +([\d.]+) MB", analysis.stdout)
        assert found
        small = ("--interface", "c", "--preprocess", "imagenet", "--memory", "5MB", "-o", tmp_path / "bundle")
        assert f"the smallest budget that works is {found[1]} MB" in said(hypsc_here("compile", path, *small))

    def test_a_target_measured_with_another_onnxruntime(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        text = hypsc_here("targets", "show", "rpi3b").stdout
        figures = 'process_bytes = 60_000_000\nonnxruntime = "1.23.2"\n[sources]'
        (tmp_path / "mine.toml").write_text(text.replace("[sources]", figures))
        target = ("compile", path, "--target", tmp_path / "mine.toml", "-o", tmp_path / "b", "--force", "--json")
        own = json.loads(hypsc_here(*target).stdout)
        assert own["target"]["onnxruntime"] == "1.23"
        newest = json.loads(hypsc_here(*target, "--onnxruntime", "1.32").stdout)
        more = library_memory("1.32").process_bytes - library_memory("1.23").process_bytes
        assert newest["peak_bytes"] == own["peak_bytes"] + more
        (tmp_path / "mine.toml").write_text(text.replace("[sources]", 'onnxruntime = "new"\n[sources]'))
        assert "'new' is no version of onnxruntime; write e.g. 1.32" in said(hypsc_here(*target))

    def test_no_version_of_onnxruntime(self, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        refused = said(hypsc_here("compile", path, "--memory", "1GB", "--onnxruntime", "newest", "-o", tmp_path / "b"))
        assert "--onnxruntime: 'newest' is no version of onnxruntime; write e.g. 1.32" in refused

    def test_names_are_no_markup(self, hypsc_here: Command, tmp_path: Path) -> None:
        """Names with square brackets and colons, which are common, are printed as they are."""
        shape = value("in[0]", 1, 4), value("out[/bold]:cat:", 1, 4)
        path = saved(
            tmp_path / "[red]m.onnx",
            model([onnx.helper.make_node("Relu", ["in[0]"], ["out[/bold]:cat:"], "[b]")], *([v] for v in shape)),
        )
        for arguments in (["compile", path, "--memory", "1GB", "-o", tmp_path / "b"], ["inspect", tmp_path / "b"]):
            result = hypsc_here(*arguments)
            assert (result.returncode, result.stderr) == (0, "")
        assert "out[/bold]:cat: float32[1, 4]" in result.stdout
        result = hypsc_here("validate", path, tmp_path / "b")
        assert (result.returncode, result.stderr) == (0, "")
        assert "out[/bold]:cat:" in result.stdout


def convolutions() -> onnx.ModelProto:
    """Return a model of a 9.4 MB convolution with its batch normalisation, then a Gemm."""
    random = np.random.default_rng(0)
    norms = [onnx.numpy_helper.from_array(random.uniform(0.5, 1.5, 1024).astype(np.float32), name) for name in "spmv"]
    weights = [weight("a", 256, 3, 3, 3), weight("w", 1024, 256, 3, 3), *norms, weight("g", 96, 1024)]
    nodes = [
        node("Conv", "x a", "c1", "conv1", pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w", "c2", "conv2", pads=[1] * 4),
        node("BatchNormalization", "c2 s p m v", "n2"),
        node("Relu", "n2", "r2"),
        node("GlobalAveragePool", "r2", "pool"),
        node("Flatten", "pool", "flat"),
        node("Gemm", "flat g", "y", "fc", transB=1),
    ]
    return model(nodes, [value("x", 1, 3, 12, 12)], [value("y", 1, 96)], weights)


class TestShard:
    """Operators that are too large, or that the user names, are split, and the bundle still computes the model."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Save the convolutions."""
        return saved(tmp_path / "m.onnx", convolutions())

    @pytest.mark.parametrize(
        ("options", "changes", "exact"),
        [
            ("--memory 62MB --threads 1", {"conv2": "by channel"}, True),
            ("--memory 62MB --threads 1 --shard-policy filter", {"conv2": "by filter"}, False),
            ("--memory 62MB --threads 1 --shard fc=input:3", {"fc": "by input", "conv2": "by channel"}, False),
            ("--shard conv2=spatial:2 --threads 1", {"conv2": "spatially"}, False),
            ("--shard conv1=spatial:3 --threads 1", {"conv1": "spatially"}, True),
            ("--shard conv2=output:4 --shard fc=channel:2 --threads 2", {"conv2": "by channel", "fc": "by output"}, True),
        ],
    )
    def test_bundle_is_what_the_report_says(
        self, options: str, changes: dict[str, str], exact: bool, path: Path, hypsc_here: Command, tmp_path: Path
    ) -> None:
        result = hypsc_here("compile", path, *options.split(), "-o", tmp_path / "b", "--json")
        assert (result.returncode, result.stderr) == (0, "")
        data = json.loads(result.stdout)
        found = {change["operator"]: change["what"] for change in data["changes"]}
        assert {name: what.partition(" into ")[0] for name, what in found.items()} == {
            name: f"split {method}" for name, method in changes.items()
        }
        assert data["exact"] == exact
        validated = json.loads(hypsc_here("validate", path, tmp_path / "b", "--random", "2", "--json").stdout)
        assert validated["passed"]

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("conv2", "is not of the form NAME=METHOD:N"),
            ("conv2=channel:1", "is not of the form NAME=METHOD:N"),
            ("conv2=rows:2", "with METHOD one of output, spatial, input, channel, filter"),
            ("conv9=channel:2", "no operator is called 'conv9'; those that can be split: 'conv1', 'conv2', 'fc'"),
            ("conv2=channel:129", "'conv2' can be split by channel into 2 to 128 shards, not 129"),
            ("conv1=filter:2", "Conv 'conv1' cannot be split by filter: it has only 3 columns or channels"),
            ("fc=spatial:2", "Gemm 'fc' cannot be split spatially: only Conv can be"),
            ("r1=output:2", "Relu 'r1' cannot be split: only Gemm, MatMul, convolutions and their 8-bit forms can be"),
        ],
    )
    def test_refused(self, option: str, words: str, path: Path, hypsc_here: Command, tmp_path: Path) -> None:
        assert words in said(hypsc_here("compile", path, "--shard", option, "-o", tmp_path / "b"))
        assert not (tmp_path / "b").exists()

    def test_operator_named_twice(self, path: Path, hypsc_here: Command) -> None:
        twice = ("--shard", "fc=input:2", "--shard", "fc=output:2")
        assert "--shard names 'fc' twice" in said(hypsc_here("compile", path, *twice))


class TestInspect:
    """The contents of a bundle, as text and as data."""

    def test_text(self, compiled: Compile, hypsc: Command, tmp_path: Path) -> None:
        labels = tmp_path / "labels.txt"
        labels.write_text("label\n" * 10)
        made = compiled(classifier(), split="pooling", preprocess="cifar10", labels=labels)
        result = hypsc("inspect", made.folder)
        assert (result.returncode, result.stderr) == (0, "")
        for words in ("model            model", "input            image float32[1, 3, 16, 16]", "labels           10"):
            assert words in result.stdout.splitlines()
        assert "output           prob float32[1, 10]" in result.stdout
        assert "bilinear" in result.stdout
        assert all(step.name in result.stdout for step in made.compiled.manifest.steps)

    def test_json_is_the_manifest(self, classifier_bundle: Bundle, hypsc: Command) -> None:
        result = hypsc("inspect", classifier_bundle.folder, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout) == json.loads((classifier_bundle.folder / "manifest.json").read_bytes())

    def test_damaged(self, classifier_bundle: Bundle, hypsc: Command, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_bundle.folder, tmp_path / "b")
        (folder / "partitions" / "00-pool1.onnx").unlink()
        assert "00-pool1.onnx is missing; copy the bundle again" in said(hypsc("inspect", folder))


class TestListings:
    """Devices and reference networks."""

    def test_targets(self, hypsc_here: Command) -> None:
        result = hypsc_here("targets", "list")
        assert (result.returncode, result.stderr) == (0, "")
        rows = result.stdout.splitlines()
        assert rows[0].split()[:3] == ["name", "device", "memory"]
        assert [row.split()[0] for row in rows[1:]] == list(target_names())
        assert re.search(
            r"^rpi3b +Raspberry Pi 3 Model B \(1 GB\) +1,073\.7 MB +822\.1 MB +4 +22\.0 MB/s$", result.stdout, re.MULTILINE
        )

    def test_targets_json(self, hypsc_here: Command) -> None:
        data = json.loads(hypsc_here("targets", "list", "--json").stdout)
        assert [entry["name"] for entry in data] == list(target_names())
        for entry in data:
            assert entry["budget_bytes"] == entry["memory_bytes"] - entry["reserved_bytes"]
            assert entry["sources"]["memory"]

    def test_target_show(self, hypsc_here: Command) -> None:
        result = hypsc_here("targets", "show", "jetson-nano")
        assert (result.returncode, result.stderr) == (0, "")
        assert 'name = "jetson-nano"' in result.stdout
        assert "[sources]" in result.stdout

    def test_models(self, hypsc_here: Command) -> None:
        result = hypsc_here("models", "list")
        assert (result.returncode, result.stderr) == (0, "")
        assert re.search(r"^vgg16 +138,357,544 +553\.4 MB", result.stdout, re.MULTILINE)
        data = json.loads(hypsc_here("models", "list", "--json").stdout)
        assert [entry["name"] for entry in data] == list(NETWORKS)
        assert data[0]["input_shape"] == [1, 3, 224, 224]

    def test_build(self, hypsc_here: Command, tmp_path: Path) -> None:
        """A network is built in one file, or with its weights in a second; the seed decides the weights."""
        for name, options in (("a", []), ("b", ["--external-data"]), ("c", ["--seed", "1"])):
            result = hypsc_here("models", "build", "squeezenet", "-o", tmp_path / f"{name}.onnx", *options)
            assert (result.returncode, result.stderr) == (0, "")
            written = [tmp_path / f"{name}.onnx", *([tmp_path / "b.onnx.data"] if options == ["--external-data"] else [])]
            assert result.stdout.splitlines() == [f"wrote {path}, {megabytes(path.stat().st_size)}" for path in written]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "b.onnx.data", "c.onnx"]
        first, second, third = (onnx.load(tmp_path / f"{name}.onnx").graph.initializer for name in "abc")
        values = [
            [onnx.numpy_helper.to_array(tensor) for tensor in found if len(tensor.dims) == 4]
            for found in (first, second, third)
        ]
        assert all(np.array_equal(a, b) for a, b in zip(values[0], values[1], strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(values[0], values[2], strict=True))

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["models", "build", "vgg61", "-o", "m.onnx"], "vgg16"),
            (["models", "build", "squeezenet", "-o", "none/m.onnx"], "create it first"),
            (["models", "build", "squeezenet", "-o", "."], "cannot write ."),
            (["models", "build", "squeezenet"], "Missing option '--output' / '-o'"),
            (["targets", "show", "rpi3"], "did you mean 'rpi3b'?"),
            (["targets", "show", "none.toml"], "no target file 'none.toml'; check the path"),
        ],
        ids=lambda case: " ".join(case) if isinstance(case, list) else "",
    )
    def test_refused(self, arguments: list[str], problem: str, hypsc_here: Command, tmp_path: Path) -> None:
        assert problem in said(hypsc_here(*arguments))
        assert not list(tmp_path.iterdir())


class TestUsage:
    """Flags and help."""

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["--foo"], "No such option"),
            (["compile"], "Missing argument"),
            (["compile", "m.onnx"], "give --target NAME (see 'hypsc targets list') or --memory SIZE, or both"),
            (["compile", "m.onnx", "--memory"], "'--memory' requires an argument"),
            (["compile", "m.onnx", "--memory", "128"], "'--memory': '128' has no unit; write e.g. 128MB or 122MiB"),
            (["compile", "m.onnx", "--memory", "128M"], "write 128MB (decimal) or 128MiB (binary)"),
            (
                ["compile", "m.onnx", "--memory", "1GB", "--split", "half"],
                "Invalid value for '--split': 'half' is not one of 'auto', 'mandatory', 'pooling', 'layers'",
            ),
            (["compile", "m.onnx", "--memory", "1GB", "--threads", "0"], "Invalid value for '--threads'"),
            (["compile", "m.onnx", "--max-params", "many"], "Invalid value for '--max-params'"),
            (
                ["compile", "m.onnx", "--memory", "1GB", "--input-shape", "x"],
                "'x' is not of the form NAME:SHAPE; write e.g. image:1,3,224,224",
            ),
            (["compile", "m.onnx", "--memory", "1GB", "--input-shape", ":1,3"], "':1,3' is not of the form"),
            (["compile", "m.onnx", "--memory", "1GB", "--input-shape", "x:1,-1"], "'x:1,-1' is not of the form"),
            (["compile", "m.onnx", "--memory", "1GB", "--input-shape", "x:1,,3"], "is not of the form"),
            (["compile", "m.onnx", "--memory", "1GB", "--input-shape", "x:" + "9" * 5000], "is not of the form"),
            (["compile", "m.onnx", "--target", "toaster"], "unknown target 'toaster'; known are jetson-nano"),
            (["validate", "m.onnx", "b", "--random", "1", "--inputs", "x.npz"], "exclude each other; give one"),
            (["validate", "m.onnx", "b", "--tolerance", "-1"], "Invalid value for '--tolerance'"),
            (["inspect", "."], "has no manifest.json; make one with 'hypsc compile'"),
            (["models", "rebuild"], "No such command 'rebuild'"),
        ],
        ids=lambda case: " ".join(case)[:50] if isinstance(case, list) else "-",
    )
    def test_mistake(self, arguments: list[str], problem: str, hypsc_here: Command, tmp_path: Path) -> None:
        assert problem in said(hypsc_here(*arguments))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("group", [[], ["targets"], ["models"]], ids=["hypsc", "targets", "models"])
    def test_group_alone_shows_its_help(self, group: list[str], hypsc_here: Command) -> None:
        alone, asked = hypsc_here(*group), hypsc_here(*group, "--help")
        assert (alone.returncode, alone.stdout) == (2, "")
        assert alone.stderr.startswith("Usage: ")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.split() == alone.stderr.split()

    def test_reader_that_goes_away(self, bin_folder: Path) -> None:
        """``hypsc targets list --json | head -0``."""
        with subprocess.Popen(
            [bin_folder / "hypsc", "targets", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode in (1, 141)


def writes_weights(folder: Path) -> bool:
    """Return whether a compilation has written a part of its weights."""
    with suppress(FileNotFoundError):  # a file was moved or removed since it was listed
        return any(path.stat().st_size > 5_000_000 for path in folder.glob(".bundle-*/partitions/*.weights"))
    return False


class TestStopped:
    """Ctrl-C and SIGTERM while 600 MB are written leave nothing, not even temporary files."""

    def stopped(self, program: Path, arguments: list[Any], folder: Path, number: signal.Signals) -> subprocess.Popen[str]:
        """Start a compilation, and signal it while weights are being written."""
        process = subprocess.Popen(
            [program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(folder / "scratch")},
        )
        assert signal_while(process, number, lambda: writes_weights(folder)), process.communicate()
        return process

    @pytest.mark.parametrize(
        ("number", "status", "there"),
        [(signal.SIGINT, 130, False), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, True)],
        ids=["ctrl-C", "ctrl-C --force", "SIGTERM --force"],
    )
    def test_while_writing(
        self,
        number: signal.Signals,
        status: int,
        there: bool,
        big: Path,
        classifier_bundle: Bundle,
        bin_folder: Path,
        tmp_path: Path,
    ) -> None:
        if there:
            shutil.copytree(classifier_bundle.folder, tmp_path / "bundle")
        (tmp_path / "scratch").mkdir()
        before = listing(tmp_path)
        arguments = ["compile", big, "--memory", "200MB", "-o", tmp_path / "bundle", *(["--force"] if there else [])]
        process = self.stopped(bin_folder / "hypsc", arguments, tmp_path, number)
        out, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, errors.strip()) == (status, "", "")
        assert listing(tmp_path) == before


def test_no_colours_and_no_progress_in_files(hypsc: Command, tmp_path: Path) -> None:
    environment = os.environ | {"TERM": "xterm-256color"}
    result = hypsc("compile", saved(tmp_path / "m.onnx", linear()), "--memory", "1GB", "-o", tmp_path / "b", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout


def test_a_device_without_the_compiler(tmp_path: Path) -> None:
    """Where the runtime alone is installed, ``hypsc`` says in one line what to install."""
    program = "import sys; sys.modules['typer'] = None; from hyps.compiler.cli.main import main; main(['targets', 'list'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (
        said(done)
        == "hypsc: the compiler needs the typer library; run in the folder of HyPS's source: pip install '.[compiler]'\n"
    )
