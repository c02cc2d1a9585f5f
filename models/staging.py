"""Write files so that they are whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hyps.runtime.signals import commit


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder next to ``path``; move all files from there at the end.

    An exception or an interrupt inside the block leaves nothing behind and an older file untouched. ``path`` itself is
    moved last, so that what it refers to is there before it.

    Raises:
        NotADirectoryError: the folder that is to hold ``path`` does not exist.
    """
    folder = path.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write {path.name}: there is no folder {folder}, create it first")
    with TemporaryDirectory(prefix=f".{path.name}.", dir=folder) as temporary:
        draft = Path(temporary, path.name)
        yield draft
        with commit():
            for part in sorted(draft.parent.iterdir(), key=lambda part: part == draft):
                part.replace(folder / part.name)
