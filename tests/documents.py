"""What is written for people and checked by tests: blocks of commands, of Python, and the schema of the manifest.

``python -m tests.documents`` writes ``docs/reference/bundle.schema.json`` anew.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from hyps.runtime.bundle.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "reference" / "bundle.schema.json"


def blocks(path: Path, language: str) -> list[str]:
    """The contents of a page's fenced blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Every shell command of a page, in order: one a line."""
    return [line for block in blocks(path, "sh") for line in block.splitlines()]


def supply(folder: Path) -> None:
    """What the pages suppose is there: a folder of photographs and a file of labels."""
    (folder / "photos").mkdir()
    cat = resources.files("skimage").joinpath("data/chelsea.png").read_bytes()
    (folder / "photos" / "cat.png").write_bytes(cat)
    shutil.copy(ROOT / "models" / "cifar10_labels.txt", folder / "labels.txt")


def execute(command: str, folder: Path, bin_folder: Path) -> str:
    """Run a page's command in ``folder``; what it printed. It must succeed."""
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def schema() -> str:
    """The manifest's JSON Schema, from the code that reads manifests."""
    made = msgspec.json.schema(Manifest)
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manifest.json of a HyPS bundle",
        **_portable(made),
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _portable(value: Any) -> Any:
    """Descriptions without the code's indentation, patterns as ECMA-262 has them: ``$`` is Python's ``\\Z`` there."""
    if isinstance(value, dict):
        return {key: _text(key, each) for key, each in value.items()}
    return [_portable(each) for each in value] if isinstance(value, list | tuple) else value


def _text(key: str, value: Any) -> Any:
    if key == "pattern" and isinstance(value, str):
        return value.replace(r"\Z", "$")
    if key == "description" and isinstance(value, str):
        return inspect.cleandoc(value)
    return _portable(value)


if __name__ == "__main__":
    SCHEMA.write_text(schema(), "utf-8")
