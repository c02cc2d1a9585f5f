"""Load target profiles: those that are built in, by name, and those of a TOML file of the user's."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from hyps.compiler.errors import TargetError
from hyps.compiler.targets import Target
from hyps.runtime.suggestions import did_you_mean

_LARGEST_FILE_BYTES = 64 * 1024


def target_names() -> tuple[str, ...]:
    """Return the names of the built-in targets, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _built_in_files()))


def load_target(name_or_path: str) -> Target:
    """Load the built-in target of this name, or the user's own file: a path, or anything that ends in ``.toml``.

    Raises `TargetError` if there is none, or if the file does not describe a possible target.
    """
    where = f"target file {name_or_path!r}" if _is_path(name_or_path) else f"built-in target {name_or_path!r}"
    try:
        return msgspec.convert(tomllib.loads(target_toml(name_or_path)), Target, strict=True)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{where} is not valid TOML: {_one_line(error)}") from error
    except RecursionError as error:
        raise TargetError(f"{where} is not valid TOML: it nests too deeply") from error
    except ValueError as error:
        raise TargetError(f"{where}: {_one_line(error)}") from error


def target_toml(name_or_path: str) -> str:
    """Return the text of the file that `load_target` would read; raise `TargetError` if it cannot be read."""
    return _read_own(name_or_path) if _is_path(name_or_path) else _read_built_in(name_or_path)


def _is_path(name_or_path: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return name_or_path.endswith(".toml") or any(separator in name_or_path for separator in separators)


def _built_in_files() -> list[Traversable]:
    folder = files("hyps.compiler").joinpath("target_data")
    return [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]


def _read_built_in(name: str) -> str:
    for entry in _built_in_files():
        if entry.name == f"{name}.toml":
            return entry.read_text(encoding="utf-8")
    known = target_names()
    raise TargetError(
        f"unknown target {name!r}; {did_you_mean(name, known)}known are {', '.join(known)}; or give the path of your own "
        ".toml file"
    )


def _read_own(path_text: str) -> str:
    path = Path(path_text)
    try:
        if not path.exists():
            raise TargetError(
                f"no target file {path_text!r}; check the path, or use a built-in target: {', '.join(target_names())}"
            )
        if not path.is_file():
            raise TargetError(f"target file {path_text!r} is not a regular file; give the path of a .toml file")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else _one_line(error)
        raise TargetError(f"cannot read target file {path_text!r}: {reason}") from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise TargetError(f"target file {path_text!r} is over 64 KiB; a target has a dozen lines: check the path")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TargetError(f"target file {path_text!r} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
