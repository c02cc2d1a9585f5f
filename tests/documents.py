"""Run the documentation's commands, and write the JSON Schemas of the files that HyPS reads.

``python -m tests.documents`` writes ``bundle.schema.json``, ``step_profile.schema.json`` and ``boards.schema.json`` to
``docs/reference``.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.planning.boards_file import BoardsFile
from hyps.runtime.profiling.profile_file import StepProfileFile
from tests.repository import BIN, ROOT

SCHEMA = ROOT / "docs" / "reference" / "bundle.schema.json"
PROFILE_SCHEMA = SCHEMA.with_name("step_profile.schema.json")
BOARDS_SCHEMA = SCHEMA.with_name("boards.schema.json")


def blocks(path: Path, language: str) -> list[str]:
    """Return the contents of a page's fenced blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


#: Functions that a page's commands meet: `git clone` copies this repository, installing is left out (`make setup` did it).
_PRELUDE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
git() { if [ "$1" = clone ]; then command git clone --quiet "$HYPS_ROOT" "$3"; else command git "$@"; fi; }
pip() { [ "$1" = install ]; }
python3() { if [ "$1 ${2-}" = "-m venv" ]; then mkdir -p "$3/bin"; : > "$3/bin/activate"; else "$HYPS_PYTHON" "$@"; fi; }
"""


def run_page(path: Path, folder: Path, *, cloned: bool) -> str:
    """Run all shell blocks of a page in order, as one bash script in ``folder``; return what it printed.

    ``cloned``: the folder holds a clone of this repository, as the guide says; else the page makes one itself.
    """
    if cloned:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    script = _PRELUDE + "\n".join(blocks(path, "sh"))
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin",
        "HYPS_ROOT": str(ROOT),
        "HYPS_PYTHON": sys.executable,
    }
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{path}\n{done.stdout}{done.stderr}"
    return done.stdout


def extras(path: Path) -> set[str]:
    """Return the optional dependencies that a page tells to install: the names in ``'.[a,b]'``."""
    return {name for group in re.findall(r"'?\.\[([a-z,]+)\]'?", path.read_text("utf-8")) for name in group.split(",")}


def schema() -> str:
    """Return the manifest's JSON Schema, made from the structs that read manifests."""
    return _described(Manifest, "manifest.json of a HyPS bundle")


def profile_schema() -> str:
    """Return the JSON Schema of step profiles, made from the structs that read them."""
    return _described(StepProfileFile, "step_profile.json of hyps-run profile")


def boards_schema() -> str:
    """Return the JSON Schema of boards files, for editors that check TOML."""
    return _described(BoardsFile, "boards.toml of hyps-manager plan")


def _described(kind: type[msgspec.Struct], title: str) -> str:
    made = _portable(msgspec.json.schema(kind))
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **made}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _portable(value: Any) -> Any:
    """Return a schema with clean descriptions, and patterns as ECMA-262 writes them: its ``$`` is Python's ``\\Z``."""
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
    PROFILE_SCHEMA.write_text(profile_schema(), "utf-8")
    BOARDS_SCHEMA.write_text(boards_schema(), "utf-8")
