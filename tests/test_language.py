"""Test the language rules that a machine can check: names and the first words of docstrings."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("compiler", "passes", "runtime", "models")
#: A module's docstring says what it does; one that opens with a question word does not.
QUESTIONS = re.compile(r"(What|Which|How|Who|Whether|Where|Why|When)\b")
#: Entry points of programs are all called ``main``.
SHARED_NAMES = {"main"}


def modules(root: Path, *folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield every Python file below ``folders`` with its syntax tree."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text("utf-8"))


def public_names(module: ast.Module) -> set[str]:
    """Return the names that a module defines and does not mark as private."""
    names = set[str]()
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_stands_for_two_things(root: Path) -> None:
    counts = Counter(name for _, module in modules(root, *PACKAGES) for name in public_names(module))
    assert len(counts) > 500
    assert {name for name, count in counts.items() if count > 1} <= SHARED_NAMES


def test_no_module_opens_with_a_question(root: Path) -> None:
    docstrings = {path: ast.get_docstring(module) or "" for path, module in modules(root, *PACKAGES, "tests")}
    assert len(docstrings) > 300
    assert [str(path) for path, text in docstrings.items() if QUESTIONS.match(text)] == []


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_room_says_what_it_is_for(root: Path, folder: str) -> None:
    rooms = {path.parent for path, _ in modules(root, folder)}
    silent = [room for room in rooms if not ast.get_docstring(ast.parse((root / room / "__init__.py").read_text("utf-8")))]
    assert [str(room) for room in silent if room.name not in ("data", "target_data")] == []
