"""Every shell command of the README works as printed, in an empty folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import blocks, commands, execute, supply


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the README supposes is there: a folder of photographs and a file of labels."""
    supply(tmp_path)
    return tmp_path


def test_commands_of_the_readme(root: Path, bin_folder: Path, folder: Path) -> None:
    listed = commands(root / "README.md")
    assert len(listed) > 10
    for command in listed:
        printed = execute(command, folder, bin_folder)
        if command.startswith("hyps-run bundle") and "--json" not in command:
            assert "cat" in printed
    assert (folder / "outputs.npz").is_file()
    assert (folder / "board.toml").is_file()


def test_python_of_the_readme(root: Path, folder: Path) -> None:
    """In the folder that its commands leave."""
    (program,) = blocks(root / "README.md", "python")
    assert len(program.splitlines()) <= 6
    shutil.copy(root / "models" / "cifar10_vgg.onnx", folder / "net.onnx")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("(1, 10)\n")


def test_make_targets_of_the_readme_exist(root: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", (root / "README.md").read_text() + (root / "CONTRIBUTING.md").read_text()))
    listed = subprocess.run(["make", "--silent", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert named - {"lint"} >= {"demo", "test", "bench", "regression"}
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in named)
