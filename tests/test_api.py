"""Test the two functions for programs, as the README shows them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import hyps
import hyps.compiler
import hyps.runtime
from hyps.compiler.cli.compile import compile_command
from hyps.compiler.errors import CompilerError, OptionError
from hyps.models.errors import ModelError
from hyps.passes.errors import DoesNotFit, PassError, PassFailed
from hyps.runtime.bundle.manifest import FORMAT_VERSION
from hyps.runtime.errors import BundleError, InputError, RuntimeFault
from hyps.runtime.execution.session import session_options


@pytest.fixture(scope="module")
def bundle(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "bundle"
    plan = hyps.compiler.compile_model(
        root / "models/cifar10_vgg.onnx", folder, memory_bytes=72_000_000, split="layers", threads=2
    )
    assert plan.peak_bytes <= 72_000_000
    assert len(plan.partitions) > 5
    return folder


def test_the_whole_models_bits_from_several_threads(bundle: Path, root: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    whole = ort.InferenceSession(root / "models/cifar10_vgg.onnx", session_options(2), providers=["CPUExecutionProvider"])
    (expected,) = whole.run(None, {"image": image})
    found = []
    with hyps.runtime.load(bundle, threads=2) as network:
        assert {name: (each.dtype, each.shape) for name, each in network.inputs.items()} == {
            "image": ("float32", (1, 3, 32, 32))
        }
        assert [*network.outputs] == ["scores"]
        threads = [threading.Thread(target=lambda: found.append(network.run({"image": image})["scores"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(InputError, match="input 'image' is missing"):
            network.run({})
    assert len(found) == 8
    assert all(np.array_equal(each, expected) for each in found)
    with pytest.raises(BundleError, match="closed"):
        network.run({"image": image})
    network.close()


def test_what_cannot_be_is_an_error_of_ours(root: Path, tmp_path: Path, bundle: Path) -> None:
    model = root / "models/cifar10_vgg.onnx"
    with pytest.raises(OptionError, match="target or memory_bytes"):
        hyps.compiler.compile_model(model, tmp_path / "b")
    with pytest.raises(DoesNotFit):
        hyps.compiler.compile_model(model, tmp_path / "b", memory_bytes=30_000_000)
    with pytest.raises(CompilerError, match="exists"):
        hyps.compiler.compile_model(model, bundle, target="rpi3b")
    with pytest.raises(BundleError):
        hyps.runtime.load(tmp_path)
    assert not list(tmp_path.iterdir())


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split": "poling"}, "split='poling' is no choice; did you mean 'pooling'? give one of auto, mandatory"),
    "tile": ({"tile": "on"}, "tile='on' is no choice"),
    "shard_policy": ({"shard_policy": None}, "shard_policy=None is no choice; give one of auto, output"),
    "no threads": ({"threads": 0}, "threads=0 is no number of threads; give a whole number from 1 on"),
    "threads as text": ({"threads": "2"}, "threads='2' is no number of threads"),
    "threads as a truth": ({"threads": True}, "threads=True is no number of threads"),
    "memory as text": ({"memory_bytes": "72MB"}, "memory_bytes='72MB' is no number of bytes"),
    "memory as a float": ({"memory_bytes": 72e6}, "memory_bytes=72000000.0 is no number of bytes"),
    "no memory": ({"memory_bytes": 0}, "memory_bytes=0 is no number of bytes"),
    "max_params": ({"max_params": -1}, "max_params=-1 is no number of parameters"),
    "shards": (
        {"shards": {"conv1": ("outputs", 4)}},
        "cannot be split by 'outputs' into 4 shards: the methods are output",
    ),
    "a shard as text": ({"shards": {"conv1": "output:4"}}, "shards gives 'conv1' 'output:4'; give a method and a number"),
    "one shard": ({"shards": {"conv1": ("output", 1)}}, "into 1 shards: the methods are"),
    "a shape": ({"input_shapes": {"image": "1,3,32,32"}}, "input_shapes gives 'image' '1,3,32,32', which is no shape"),
    "a name": ({"until": "conv1"}, "until='conv1' is one name; give a list, ['conv1']"),
}


@pytest.mark.parametrize(("options", "said"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options_are_refused(options: dict[str, Any], said: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        hyps.compiler.compile_model(
            root / "models/cifar10_vgg.onnx", tmp_path / "b", **{"memory_bytes": 72_000_000, **options}
        )
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_all_options_of_the_command_exist() -> None:
    """The others say where the command writes and what it prints."""
    renamed = {"memory": "memory_bytes", "shard": "shards", "code": "codes"}
    renamed |= {"input_shape": "input_shapes", "output": "bundle"}
    printing = {"steps", "quiet", "verbose", "json"}
    command = {renamed.get(name, name) for name in inspect.signature(compile_command).parameters} - printing
    assert {*inspect.signature(hyps.compiler.compile_model).parameters} == {*command, "progress"}


def test_a_compilation_reports_its_progress(root: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, float]] = []
    hyps.compiler.compile_model(
        root / "models/cifar10_vgg.onnx",
        tmp_path / "b",
        memory_bytes=72_000_000,
        progress=lambda stage, share: calls.append((stage, share)),
    )
    stages = [*dict.fromkeys(stage for stage, _ in calls)]
    assert stages == ["reading", "planning", "analysing", "writing"]
    for stage in stages:
        shares = [share for each, share in calls if each == stage]
        assert (shares[0], shares[-1]) == (0.0, 1.0)
        assert shares == sorted(shares)
    assert len(calls) > 2 * len(stages)


def test_an_exception_of_the_progress_ends_the_compilation(root: Path, tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "writing":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        hyps.compiler.compile_model(root / "models/cifar10_vgg.onnx", tmp_path / "b", memory_bytes=72_000_000, progress=stop)
    assert not list(tmp_path.iterdir())


def test_every_error_has_one_base() -> None:
    for base in (CompilerError, PassError, RuntimeFault, ModelError):
        assert issubclass(base, hyps.HypsError)
    assert not issubclass(PassFailed, hyps.HypsError), "it is a bug"
    assert hyps.__version__ == version("hyps")
    with pytest.raises(AttributeError):
        _ = hyps.nothing


def test_importing_the_packages_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'onnxruntime', 'onnx', 'typer'}"
    script = f"import hyps.runtime, hyps.compiler, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError):
        _ = hyps.runtime.nothing


@pytest.mark.parametrize("command", ["hypsc", "hyps-run", "hyps-manager", "hyps-worker"])
def test_versions_are_printed(bin_folder: Path, command: str) -> None:
    text = subprocess.run([bin_folder / command, "--version"], capture_output=True, text=True, check=True).stdout
    assert text.startswith(f"{command} ")
    assert f"onnxruntime {ort.__version__}\n" in text
    assert f"numpy {np.__version__}\n" in text
    assert f"bundle format {FORMAT_VERSION}\n" in text
