"""Write a bundle whole or not at all.

Everything goes into a temporary folder next to the destination, the manifest last. Then the folder is renamed. A failure, a
full disk or ctrl-C leaves the destination as it was. The callers name the error that a user of their command can mend.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.bundle.owned_folders import REPLACED, owned_folder
from hyps.runtime.errors import HypsError
from hyps.runtime.signals import commit
from hyps.runtime.units import megabytes_down, megabytes_up

#: The folder of a bundle that holds its partitions and their weights.
PARTITIONS = "partitions"


def check_is_writable(path: Path, error: type[HypsError], *, force: bool) -> None:
    """Raise ``error`` unless a bundle may be written at ``path``; ``force`` allows replacing a bundle."""
    try:
        if not path.parent.is_dir():
            raise error(f"the folder {path.parent} does not exist; create it, or name another with -o")
        if not path.exists():
            return
        if not path.is_dir() or (any(path.iterdir()) and not _is_bundle(path)):
            raise error(f"{path} exists and is not a bundle; name another folder with -o")
        if not force:
            raise error(f"{path} exists; replace it with --force, or name another folder with -o")
    except OSError as fault:
        raise error(f"cannot write {path}: {fault.strerror}; name another folder with -o") from None


@contextmanager
def whole_or_absent(path: Path, error: type[HypsError]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds, and is removed when it raises.

    Raises ``error`` when the disk is full or cannot be written to.
    """
    try:
        replaces = path.exists()
        with owned_folder(path.parent, f".{path.name}-") as folder:
            folder.chmod(0o755)
            (folder / PARTITIONS).mkdir()
            yield folder
            with commit():
                if replaces:
                    _replace(folder, path)
                else:
                    folder.rename(path)  # fails if something appeared there meanwhile
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise error(f"no space left to write {path}; free some, or name another disk with -o") from None
        raise error(f"cannot write {path}: {fault.strerror or fault}; name another folder with -o") from None


def check_free_bytes(path: Path, needed_bytes: int, error: type[HypsError]) -> None:
    """Raise ``error`` when the disk of ``path`` has less than ``needed_bytes`` free."""
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes:
        raise error(
            f"{path} needs {megabytes_up(needed_bytes)}, its disk has {megabytes_down(free)} free; free some, or name "
            "another disk with -o"
        )


def _is_bundle(path: Path) -> bool:
    """Return whether a folder looks like a bundle, even a damaged one; ``manifest.json`` alone is not enough."""
    return (path / MANIFEST_NAME).is_file() and (path / PARTITIONS).is_dir()


def _replace(folder: Path, path: Path) -> None:
    """Replace the older bundle at ``path`` with ``folder``; without the new one the older comes back."""
    with owned_folder(path.parent, f".{path.name}-", REPLACED) as older:
        path.rename(older / path.name)
        folder.rename(path)
