"""Check the documentation: its commands and programs run, its schema is the code's, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hyps.compiler import compile_model
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from tests.documents import (
    BOARDS_SCHEMA,
    PROFILE_SCHEMA,
    SCHEMA,
    blocks,
    boards_schema,
    profile_schema,
    run_page,
    schema,
)
from tests.repository import ROOT

DOCS = ROOT / "docs"
#: The pages with commands that a reader types in order.
GUIDES = [page for page in sorted((DOCS / "guide").glob("*.md")) if blocks(page, "sh")]
#: Shell commands stand in blocks that are run; other blocks hold what commands print, files, or Python.
LANGUAGES = {"sh", "python", "text", "toml", "json"}
PROGRAMS = [path for path in sorted((DOCS / "reference").glob("*.md")) if blocks(path, "python")]
PASS = DOCS / "contributing" / "pass.md"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, removed afterwards: networks are large."""
    place = tmp_path / "guide"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The manifest of a bundle with everything that is optional."""
    place = tmp_path_factory.mktemp("bundle")
    compile_model(
        ROOT / "models" / "cifar10_vgg.onnx",
        place / "bundle",
        memory_bytes=72_000_000,
        split="layers",
        preprocess="cifar10",
        labels=ROOT / "models" / "cifar10_labels.txt",
    )
    return json.loads((place / "bundle" / MANIFEST_NAME).read_bytes())


def run_program(program: str, folder: Path) -> None:
    """It ends well, and says nothing on standard error; warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{program}\n{done.stderr}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_and_programs_of_a_guide(page: Path, folder: Path) -> None:
    """All commands of a page run in order, in a clone; then its programs, in the same folder."""
    run_page(page, folder, cloned=True)
    for program in blocks(page, "python"):
        run_program(program, folder)


def test_every_command_is_run() -> None:
    """A block without a language would be a command that no test runs."""
    for page in (ROOT / "README.md", DOCS / "index.md", *(DOCS / "guide").glob("*.md")):
        fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(fences[::2]) <= LANGUAGES, page
        assert set(fences[1::2]) <= {""}, page


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)
def test_programs_of_the_reference(page: Path, folder: Path) -> None:
    shutil.copy(ROOT / "models" / "cifar10_vgg.onnx", folder / "net.onnx")
    shutil.copy(ROOT / "models" / "cifar10_labels.txt", folder / "labels.txt")
    shutil.copy(ROOT / "models" / "cat.jpg", folder)
    compile_model(folder / "net.onnx", folder / "bundle", memory_bytes=72_000_000, split="pooling")
    for program in blocks(page, "python"):
        run_program(program, folder)


def test_the_worked_example_of_a_pass(tmp_path: Path) -> None:
    """The pass and its tests, the property and the mutation included, as one file that pytest runs."""
    program = "\n".join(blocks(PASS, "python"))
    assert "def test_" in program
    (tmp_path / "test_example.py").write_text(program, "utf-8")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{program.count('def test_')} passed" in done.stdout


def test_the_schema_is_current() -> None:
    """``make docs`` writes it anew."""
    assert SCHEMA.read_text("utf-8") == schema()
    assert PROFILE_SCHEMA.read_text("utf-8") == profile_schema()
    assert BOARDS_SCHEMA.read_text("utf-8") == boards_schema()


def test_the_example_of_a_boards_file_is_as_the_schema_says() -> None:
    validator = Draft202012Validator(json.loads(BOARDS_SCHEMA.read_bytes()))
    example = tomllib.loads((DOCS / "guide" / "boards.toml").read_text("utf-8"))
    assert not list(validator.iter_errors(example))
    example["boards"][0]["memory"] = 700
    assert list(validator.iter_errors(example))


def test_a_manifest_is_as_the_schema_says(manifest: Any) -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_bytes()))
    validator = Draft202012Validator(json.loads(SCHEMA.read_bytes()))
    assert not list(validator.iter_errors(manifest))
    assert manifest["preprocess"]
    assert manifest["labels"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("version",), 2),
        (("budget_bytes",), 0),
        (("unknown",), 1),
        (("steps",), []),
        (("model", "sha256"), "0" * 63),
        (("steps", 0, "model", "path"), "partitions/../../etc/passwd"),
        (("steps", 0, "peak_bytes"), -1),
        (("preprocess", "layout"), "NHCW"),
    ],
    ids=str,
)
def test_other_manifests_are_not(manifest: Any, place: tuple[Any, ...], value: Any) -> None:
    wrong = json.loads(json.dumps(manifest))
    *way, last = place
    inner = wrong
    for key in way:
        inner = inner[key]
    inner[last] = value
    assert not Draft202012Validator(json.loads(SCHEMA.read_bytes())).is_valid(wrong)


def test_the_format_page_names_every_field() -> None:
    text = (DOCS / "reference" / "bundle.md").read_text("utf-8")
    records = json.loads(SCHEMA.read_bytes())["$defs"]
    fields = {name for record in records.values() for name in record.get("properties", ())}
    assert {name for name in fields if f"`{name}`" not in text} == set()


class _Loads(HTMLParser):
    """What a page loads by itself when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(values.get("src") or "")
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(values.get("href") or "")


needs_mkdocs = pytest.mark.skipif(
    not os.environ.get("CI") and find_spec("mkdocs") is None, reason="mkdocs is not installed: make setup"
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As ``make docs`` does. Never with ``--quiet``: then warnings, and so broken links, are no errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@needs_mkdocs
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = build(ROOT, site)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        parser = _Loads()
        parser.feed(page.read_text("utf-8"))
        assert parser.found
        assert not [url for url in parser.found if re.match(r"(https?:)?//", url)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet
    reference = (site / "reference" / "api.html").read_text("utf-8")
    assert all(name in reference for name in ("compile_model", "smallest_budget_bytes", "BundleError"))


@needs_mkdocs
def test_links_that_lead_nowhere_are_errors(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".types").symlink_to(ROOT / ".types")
    wrong = ["nosuch.md", "guide/budget.md#nosuch", "#nosuch", "/index.md", "../README.md#nosuch", "../LICENSE"]
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as stream:
        stream.writelines(f"\n[wrong]({link})\n" for link in wrong)
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert f"Aborted with {len(wrong)} warnings in strict mode" in done.stdout + done.stderr
