"""For mkdocs: pages of the repository that lie outside ``docs/`` become pages of the site, so that links to them hold."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

#: The repository's own pages, in the site's folder ``project``.
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
#: The folder of the site that stands for the repository's root.
FOLDER = "project"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's own pages."""
    root = Path(config.docs_dir).parent
    for name in PAGES:
        text = (root / name).read_text("utf-8").replace("](docs/", "](../")
        files.append(File.generated(config, f"{FOLDER}/{name}", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links out of ``docs/`` to those pages into links within the site."""
    up = "../" * len(PurePosixPath(page.file.src_uri).parents)
    for name in PAGES if not page.file.src_uri.startswith(f"{FOLDER}/") else ():
        markdown = markdown.replace(f"]({up}{name}", f"]({up[3:]}{FOLDER}/{name}")
    return markdown
