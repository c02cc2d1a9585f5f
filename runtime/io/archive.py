"""Results of many inputs in a file as they come: JSON lines, or a folder of Parquet files. A second run goes on there."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import OutputError
from hyps.runtime.io.inputs import InputSource
from hyps.runtime.io.results import Result
from hyps.runtime.signals import deferred_signals

#: A line is read back only up to here.
_LINE_BYTES = 1 << 20
#: A Parquet file holds so many results, or those of so many seconds.
_PART_RESULTS, _PART_S = 1000, 5.0


class Kept(Result, frozen=True, kw_only=True):
    """A result, and the sha256 of the bundle's manifest that it is of."""

    bundle: str


class Archive(Protocol):
    """Where results are kept; ``done`` names the inputs whose results it had before."""

    done: frozenset[str]

    def add(self, result: Result) -> None:
        """Keep a result. Raises `OutputError`."""
        ...

    def close(self) -> None:
        """All that was added is there now."""
        ...


def open_archive(path: Path, bundle: Path) -> Archive:
    """FILE.jsonl, or FILE.parquet, a folder. Raises `OutputError` for another kind, or results of another bundle."""
    bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    if path.suffix == ".jsonl":
        return JsonLines(path, bundle_sha256)
    if path.suffix == ".parquet":
        return Parquet(path, bundle_sha256)
    raise OutputError(f"--output '{path}': results go to FILE.jsonl or FILE.parquet")


@contextmanager
def keeping(path: Path, bundle: Path, found: deque[InputSource]) -> Iterator[Callable[[Result], None]]:
    """Keep results at ``path``; inputs whose results it has are left out of ``found``. Raises `OutputError`."""
    with closing(open_archive(path, bundle)) as archive:
        left = [source for source in found if source.name not in archive.done]
        found.clear()
        found.extend(left)
        yield archive.add


class JsonLines:
    """One JSON object a line; a last line that was cut off is made anew."""

    def __init__(self, path: Path, bundle_sha256: str) -> None:
        self._path, self._bundle_sha256 = path, bundle_sha256
        try:
            self._stream: BinaryIO = path.open("a+b")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        try:
            self.done = frozenset(self._read())
        except BaseException:
            self._stream.close()
            raise

    def _read(self) -> set[str]:
        found, end = set(), 0
        self._stream.seek(0)
        while (line := self._stream.readline(_LINE_BYTES)).endswith(b"\n"):
            try:
                with deferred_signals():
                    kept = msgspec.json.decode(line, type=Kept)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise OutputError(f"{self._path} holds something else than results; name another file") from None
            _check_bundle(self._path, kept.bundle, self._bundle_sha256)
            found.add(kept.input)
            end += len(line)
        self._stream.truncate(end)
        return found

    def add(self, result: Result) -> None:
        """Append a line."""
        try:
            self._stream.write(msgspec.json.encode(_kept(result, self._bundle_sha256)) + b"\n")
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Have it on the disk."""
        with suppress(OSError):
            os.fsync(self._stream.fileno())
        self._stream.close()


class Parquet:
    """Files of a thousand results each in one folder, which readers of Parquet take as one table."""

    def __init__(self, path: Path, bundle_sha256: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise OutputError(
                "--output FILE.parquet needs the pyarrow library: pip install 'hyps[dask]'; or give FILE.jsonl"
            ) from None
        self._arrow: Any = pyarrow
        self._path, self._bundle_sha256 = path, bundle_sha256
        self._waiting: list[dict[str, Any]] = []
        self._written_at = time.monotonic()
        try:
            path.mkdir(exist_ok=True)
            self.done = frozenset(name for part in sorted(path.glob("part-*.parquet")) for name in self._read(part))
        except (OSError, pyarrow.ArrowException) as error:
            raise OutputError(f"cannot go on with the results in {path}: {error}; name another folder") from None

    def _read(self, part: Path) -> list[str]:
        columns = self._arrow.parquet.read_table(part, columns=["input", "bundle"]).to_pydict()
        for bundle in set(columns["bundle"]):
            _check_bundle(self._path, bundle, self._bundle_sha256)
        return [str(name) for name in columns["input"]]

    def add(self, result: Result) -> None:
        """Keep it for the next file, and write that when it is due."""
        self._waiting.append(msgspec.to_builtins(_kept(result, self._bundle_sha256)))
        if len(self._waiting) >= _PART_RESULTS or time.monotonic() > self._written_at + _PART_S:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._write()

    def _write(self) -> None:
        rows = [{**row, "outputs": sorted(row["outputs"])} for row in self._waiting]
        name = f"part-{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
        partial = self._path / f".{name}"
        try:
            self._arrow.parquet.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema()), partial)
            partial.replace(self._path / name)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None
        self._waiting.clear()
        self._written_at = time.monotonic()

    def _schema(self) -> Any:
        arrow = self._arrow
        top = arrow.struct([("index", arrow.int64()), ("label", arrow.string()), ("score", arrow.float64())])
        kinds = {"input": arrow.string(), "bundle": arrow.string(), "top": arrow.list_(top)}
        kinds |= {"outputs": arrow.list_(arrow.string()), "latency_s": arrow.float64()}
        kinds |= {"peak_rss_bytes": arrow.int64(), "budget_bytes": arrow.int64()}
        return arrow.schema(list(kinds.items()))


def _kept(result: Result, bundle_sha256: str) -> Kept:
    return Kept(**{name: getattr(result, name) for name in Result.__struct_fields__}, bundle=bundle_sha256)


def _check_bundle(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise OutputError(f"{path} holds results of another bundle; name another file")
