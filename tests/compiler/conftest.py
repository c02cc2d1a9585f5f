"""Run the commands, compile small models, list folders, and measure the memory of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from hyps.compiler.cli.main import main
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import Compiled, compile_file
from hyps.passes.planning.request import Request
from tests.compiler.onnxes import big_model, classifier, saved

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A compiled bundle, its model, and the result of the compilation."""

    model: Path
    folder: Path
    compiled: Compiled

    @property
    def partitions(self) -> list[Path]:
        """The files of the partitions' models, in the order in which they run."""
        return [self.folder / step.model.path for step in self.compiled.manifest.steps]


Compile = Callable[..., Bundle]


def compiled_in(
    folder: Path,
    source: ModelProto | Path,
    *,
    budget_bytes: int = 10**9,
    split: Any = "auto",
    tier: Any = "lean",
    **options: Any,
) -> Bundle:
    """Compile a model, a file or a structure, into ``folder / "bundle"``; it asks for no arena."""
    model = source if isinstance(source, Path) else saved(folder / "model.onnx", source)
    request = Request(budget_bytes=budget_bytes, split=split, threads=2, tier=tier)
    job = Compilation(model=model, output=folder / "bundle", request=request, target_name="test", **options)
    return Bundle(model=model, folder=job.output, compiled=compile_file(job))


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Return `compiled_in` for the test's own folder."""
    return partial(compiled_in, tmp_path)


@pytest.fixture(scope="session")
def classifier_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compile the small classifier, cut after each pooling; tests must not change it."""
    folder = tmp_path_factory.mktemp("classifier")
    model = saved(folder / "classifier.onnx", classifier())
    job = Compilation(
        model=model,
        output=folder / "bundle",
        request=Request(budget_bytes=10**9, split="pooling", threads=2),
        target_name="test",
    )
    return Bundle(model=model, folder=job.output, compiled=compile_file(job))


@pytest.fixture(scope="session")
def hypsc(bin_folder: Path) -> Command:
    """Return a function that runs ``hypsc`` as a user does."""
    return _command(bin_folder / "hypsc")


@pytest.fixture
def hypsc_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs ``hypsc`` in this process and in ``tmp_path``, which is faster."""

    def call(*arguments: object) -> Completed:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)
        words = list(map(str, arguments))
        with pytest.raises(SystemExit) as caught:
            main(words)
        out, errors = capsys.readouterr()
        return Completed(words, int(str(caught.value.code)), out, errors)

    return call


@pytest.fixture(scope="session")
def hyps_run(bin_folder: Path) -> Command:
    """Return a function that runs ``hyps-run`` as a user does."""
    return _command(bin_folder / "hyps-run")


def _command(program: Path) -> Command:
    def call(*arguments: object, **options: Any) -> Completed:
        command = [str(program), *map(str, arguments)]
        # os.environ alone: readline, which pytest imports, also sets COLUMNS in the environment of the C library
        options = {"env": dict(os.environ)} | options
        return subprocess.run(command, check=False, capture_output=True, text=True, **options)

    return call


@pytest.fixture(scope="session")
def measured() -> Command:
    """Return a function that runs Python code in a new process, which prints its peak resident bytes (VmHWM) last."""

    def call(code: str, *arguments: object, **options: Any) -> Completed:
        return subprocess.run(
            [sys.executable, "-c", f"{code}\n{_PEAK}", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            **options,
        )

    return call


_PEAK = """
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
print(1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")))
"""


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of 600 MB as one sparse file."""
    return big_model(tmp_path_factory.mktemp("big") / "big.onnx", 6)


@pytest.fixture
def unchanged() -> Iterator[Callable[[Path], None]]:
    """Yield a function that records a folder; after the test the folder must be the same, with its hidden files."""
    before: dict[Path, dict[str, bytes | None]] = {}
    yield lambda folder: before.update({folder: listing(folder)})
    for folder, content in before.items():
        assert listing(folder) == content


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return what a folder holds, by relative path: a file's first 4 MB, a link's target, None for a folder."""
    found: dict[str, bytes | None] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = os.fsencode(path.readlink())
            elif path.is_file():
                with path.open("rb") as stream:
                    found[key] = stream.read(4 << 20)
            else:
                found[key] = None
    return found
