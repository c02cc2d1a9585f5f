"""Write outputs to .npz files and profiles to JSON files, each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyps.runtime.errors import OutputError
from hyps.runtime.signals import commit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyps.runtime.execution.step_profile import StepProfile


def save(path: Path, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file; unlike ``np.savez`` it takes tensors of any name, for example ``file``. Raises `OutputError`."""
    import zipfile

    from numpy.lib import format as npy_format

    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, values, allow_pickle=False)


def save_profile(path: Path, profiles: Iterable[StepProfile]) -> None:
    """Write a JSON list with an object for each step. Raises `OutputError`."""
    import msgspec

    with replacing(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(list(profiles)), indent=1) + b"\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path``: it replaces ``path`` if the block succeeds, else it is removed.

    Raises `OutputError` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        with commit():
            partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink()
