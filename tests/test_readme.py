"""Every shell command of the README works as printed, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """What the README supposes is there: a folder of photographs and a file of labels."""
    (tmp_path / "photos").mkdir()
    cat = resources.files("skimage").joinpath("data/chelsea.png").read_bytes()
    (tmp_path / "photos" / "cat.png").write_bytes(cat)
    shutil.copy(root / "models" / "cifar10_labels.txt", tmp_path / "labels.txt")
    return tmp_path


def test_commands_of_the_readme(root: Path, bin_folder: Path, folder: Path) -> None:
    commands = [line for block in BLOCK.findall((root / "README.md").read_text()) for line in block.splitlines()]
    assert len(commands) > 10
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("hyps-run bundle") and "--json" not in command:
            assert "cat" in done.stdout
    assert (folder / "outputs.npz").is_file()
    assert (folder / "board.toml").is_file()


def test_python_of_the_readme(root: Path, folder: Path) -> None:
    """In the folder that its commands leave."""
    (program,) = re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)
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
