"""Write a benchmark's page of documentation, with its plots in a folder next to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_page(docs: Path, name: str, page: str, drawn: Mapping[str, bytes]) -> None:
    """Write ``name``.md, and the plots as SVG files by their names; plots of other names are removed."""
    folder = docs / name
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for plot, content in drawn.items():
        (folder / f"{plot}.svg").write_bytes(content)
    (docs / f"{name}.md").write_text(page, "utf-8")
