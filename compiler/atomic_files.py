"""Write files whole or not at all: each to a temporary file in the same folder, which is then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hyps.compiler.errors import WriteError
from hyps.runtime.signals import commit


def check_file(path: Path, *, force: bool, option: str = "-o") -> None:
    """Raise `WriteError` unless a file may be written at ``path``; ``force`` allows replacing one.

    ``option`` is the command-line option that names the path.
    """
    if not path.parent.is_dir():
        raise WriteError(f"the folder {path.parent} does not exist; create it, or name another with {option}")
    if path.exists() and not path.is_file():
        raise WriteError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; name a file with {option}")
    if not force and os.path.lexists(path):
        raise WriteError(f"{path} exists; replace it with --force, or name another with {option}")


def write_files(folder: Path, contents: Mapping[str, bytes], option: str = "-o") -> None:
    """Write files, by name, to ``folder``, which is created if absent. Raises `WriteError`."""
    is_new_folder = False
    waiting: dict[Path, Path] = {}
    try:
        if not folder.exists():
            folder.mkdir()
            is_new_folder = True
        for name, content in contents.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
            waiting[Path(temporary)] = Path(os.path.realpath(folder / name))
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(temporary).chmod(0o644)
        with commit():
            for source, target in list(waiting.items()):
                source.replace(target)
                del waiting[source]
                is_new_folder = False
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "no space left" if is_full else error.strerror
        raise WriteError(f"cannot write in {folder}: {why}; name another folder with {option}") from None
    finally:
        for temporary_file in waiting:
            temporary_file.unlink(missing_ok=True)
        if is_new_folder:
            with suppress(OSError):
                folder.rmdir()
