"""Run the README as printed, from an empty folder, and hold it to its length."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from tests.documents import extras, run_page

#: What a reader takes in before the first command.
MOST_LINES = 130


def test_the_commands_end_in_an_answer_and_a_report(root: Path, tmp_path: Path) -> None:
    printed = run_page(root / "README.md", tmp_path, cloned=False)
    assert re.search(r"^models/cat\.jpg\n( +\d+\.\d\d% +\d+.*\n){5}", printed, re.MULTILINE)
    assert "passed: 1 input" in printed
    assert (tmp_path / "hyps" / "report.html").stat().st_size > 50_000


def test_it_is_short_and_says_what_it_runs_on(root: Path) -> None:
    text = (root / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < MOST_LINES
    assert all(word in text for word in ("64-bit", "3.11 to 3.13", "smallest budget", "--batch"))
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures
    assert all((root / picture).is_file() for picture in pictures)


def test_extras_that_are_to_be_installed_exist(root: Path) -> None:
    known = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    named = set().union(*map(extras, pages))
    assert {"compiler", "manager", "cluster", "dask", "web"} <= named <= known.keys()


def test_make_targets_that_are_named_exist(root: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", (root / "README.md").read_text() + (root / "CONTRIBUTING.md").read_text()))
    listed = subprocess.run(["make", "--silent", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert named - {"lint"} >= {"demo", "test", "bench", "regression"}
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in named)
