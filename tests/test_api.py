"""The two functions for programs, as the README has them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import hyps.compiler
import hyps.runtime
from hyps.compiler.errors import CompilerError, OptionError
from hyps.passes.errors import DoesNotFit
from hyps.runtime.errors import BundleError, InputError
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


def test_importing_the_packages_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'onnxruntime', 'onnx', 'typer'}"
    script = f"import hyps.runtime, hyps.compiler, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError):
        _ = hyps.runtime.nothing


@pytest.mark.parametrize("command", ["hypsc", "hyps-run", "hyps-manager", "hyps-worker"])
def test_versions_are_told(bin_folder: Path, command: str) -> None:
    said = subprocess.run([bin_folder / command, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{command} ")
    assert f"onnxruntime {ort.__version__}\n" in said
    assert f"numpy {np.__version__}\n" in said
    assert "bundle format 3\n" in said
