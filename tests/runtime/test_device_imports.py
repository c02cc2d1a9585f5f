"""A device has numpy, onnxruntime, Pillow and msgspec, and nothing of the compiler's: the runtime needs no more."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hyps.runtime
from tests.waiting import PATIENCE_S

ABSENT = ("onnx", "onnx_graphsurgeon", "networkx", "typer", "rich", "google.protobuf", "torch", "zstandard")
#: What a device of a cluster has besides; its manager's own are imported when needed.
CLUSTER = ("paho", "cryptography")
OURS = ("hyps.compiler", "hyps.passes", "hyps.models")
MODULES = sorted(module.name for module in pkgutil.walk_packages(hyps.runtime.__path__, "hyps.runtime."))
ALONE = [name for name in MODULES if not name.startswith(("hyps.runtime.cluster", "hyps.runtime.web"))]
#: Makes modules unimportable for the rest of the process.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in ABSENT):
            raise ModuleNotFoundError(f"{name} is not on a device", name=name)

sys.meta_path.insert(0, Blocker())
"""
#: Imports each module in a copy of the process that has imported nothing.
EACH_ALONE = """
import os
for name in sys.argv[1:]:
    if os.fork() == 0:
        import importlib
        importlib.import_module(name)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{name} does not import")
print(len(sys.argv) - 1, "imported")
"""


def on_a_device(
    script: str, *arguments: str | Path, absent: tuple[str, ...] = ABSENT + OURS + CLUSTER
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"ABSENT = {absent}" + BLOCKER + script, *arguments],
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_the_modules_are_all_found() -> None:
    folder = Path(hyps.runtime.__path__[0])
    paths = {path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py")}
    names = {".".join(("hyps.runtime", *path.parts)).removesuffix(".__init__") for path in paths}
    assert names == {*MODULES, "hyps.runtime"}


@pytest.mark.parametrize("absent", ABSENT + OURS + CLUSTER)
def test_the_blocker_blocks(absent: str) -> None:
    done = on_a_device(f"import {absent}")
    assert f"ModuleNotFoundError: {absent} is not on a device" in done.stderr


def test_every_module_imports() -> None:
    done = on_a_device("import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)", *ALONE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("modules", "more"),
    [(ALONE, CLUSTER), ([name for name in MODULES if name not in ALONE], ("cryptography",))],
    ids=["device", "cluster"],
)
def test_every_module_imports_on_its_own(modules: list[str], more: tuple[str, ...]) -> None:
    """So that no module needs another to have been imported first; one device needs nothing of the cluster's."""
    done = on_a_device(EACH_ALONE, *modules, absent=ABSENT + OURS + more)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(modules)} imported\n", "")


def test_a_bundle_runs(cifar_bundle: Path, photograph: Path) -> None:
    done = on_a_device("from hyps.runtime.cli.main import main\nmain()", cifar_bundle, photograph)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 7


def test_the_command_imports_what_is_heavy_only_when_it_runs() -> None:
    """So that ``--help`` is quick and the lean restart comes before numpy's threads."""
    script = "import hyps.runtime.cli.main\nprint(sorted({'numpy', 'onnxruntime', 'PIL', 'msgspec'} & set(sys.modules)))"
    assert on_a_device(script).stdout == "[]\n"


def test_running_a_bundle_imports_no_heavy_part_of_numpy(cifar_bundle: Path, tmp_path: Path) -> None:
    """``numpy.random`` alone is 6.5 MB."""
    script = """
import numpy as np
from pathlib import Path
from hyps.runtime.execution.loading import load_executor
load_executor(Path(sys.argv[1])).run({"image": np.zeros((1, 3, 32, 32), np.float32)})
print(sorted({"numpy.random", "numpy.testing", "numpy.f2py", "PIL"} & set(sys.modules)))
"""
    done = on_a_device(script, cifar_bundle)
    assert (done.stdout, done.stderr) == ("[]\n", "")
