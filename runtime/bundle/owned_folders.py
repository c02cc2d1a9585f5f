"""Make temporary folders that a later run removes if this one is killed.

The owner of a folder holds a lock on it (``flock``), which ends with its process. So a folder that can be locked is nobody's
any more, whatever became of the process id.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: The end of an owned folder's name. No folder without it is ever removed.
SUFFIX = ".hypsc-unfinished"
#: The end of the name of an owned folder that holds an older bundle while the new one takes its place.
REPLACED = f".replaced{SUFFIX}"


@contextmanager
def owned_folder(parent: Path, prefix: str, suffix: str = SUFFIX) -> Iterator[Path]:
    """Yield a new folder in ``parent``; remove it afterwards, unless it was moved. Raises `OSError`.

    What is in a folder of the suffix `REPLACED` goes back to ``parent`` where it has no successor there.
    """
    folder, lock = _made(parent, prefix, suffix)
    try:
        yield folder
    finally:
        try:
            _remove(folder)
        finally:
            if lock is not None:
                os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the owned folders in ``parent`` whose owners are gone. An older bundle that has no successor is put back."""
    for folder in parent.glob(f"*{SUFFIX}"):
        with suppress(OSError):  # held, someone else's, or gone
            lock = _lock(folder)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    _remove(folder)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    if folder.name.endswith(REPLACED) and folder.is_dir():
        for bundle in folder.iterdir():
            if not (folder.parent / bundle.name).exists():
                bundle.rename(folder.parent / bundle.name)
    shutil.rmtree(folder, ignore_errors=True)


def _made(parent: Path, prefix: str, suffix: str) -> tuple[Path, int | None]:
    """Return a new folder and the lock on it; None where the file system has no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # another run took it for abandoned
            continue
        except OSError:
            return folder, None


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the lock on a folder. Raises `OSError` where another does, or the folder is gone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.lstat()):
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
