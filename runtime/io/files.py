"""Where results go besides standard output: .npz files and profiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyps.runtime.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyps.runtime.execution.executor import StepProfile


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
