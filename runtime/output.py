"""Where results go: printed lines, and .npz files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hyps.runtime.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyps.runtime.executor import StepProfile


def save(path: Path, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file, whole or not at all; unlike ``np.savez`` it takes tensors of any name, ``file`` for one."""
    import zipfile

    from numpy.lib import format as npy_format

    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, values, allow_pickle=False)


def save_profile(path: Path, profiles: Iterable[StepProfile]) -> None:
    """Write a JSON list with an object for each step, whole or not at all."""
    import msgspec

    with replacing(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(list(profiles)), indent=1) + b"\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to: it takes the place of ``path`` if the block ends well, and disappears if not.

    Raises `OutputError` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def show(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines at once. Raises `OutputError` where they cannot be, BrokenPipeError where the reader went away."""
    try:
        for line in lines:
            print(line, file=stream or sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        raise OutputError(f"cannot print the result: {error.strerror}") from None


def drop_stdout() -> None:
    """Let go of an output that takes no more, or Python tries again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
