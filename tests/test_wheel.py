"""The wheel holds every module and data file, and nothing else; the base install is the runtime alone."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("compiler", "passes", "runtime", "models")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the files git knows, through the source distribution."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if (root / name).is_file() and not (root / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((root / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(output.glob("*.whl"))


def test_wheel_holds_exactly_the_packages(wheel: Path, root: Path) -> None:
    expected = {"hyps/__init__.py"} | {
        f"hyps/{path.relative_to(root)}"
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".toml", ".txt", ".onnx", ".jpg", ".html", ".css", ".js", ".svg", ".bash", ".fish", ".zsh"}
        or path.name == "py.typed"
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert found == expected
    assert licences


def test_base_install_is_the_runtime_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))))
    required = {
        line.split(";")[0].split(">")[0].strip() for line in metadata.get_all("Requires-Dist") or () if ";" not in line
    }
    assert required == {"numpy", "onnxruntime", "pillow", "msgspec"}
