"""Keep results of many inputs in a file as they come: JSON lines, or a folder of Parquet files. A later run continues it."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import OutputError
from hyps.runtime.io.results import ResultRecord
from hyps.runtime.signals import deferred_signals
from hyps.runtime.suggestions import install

#: The longest line that is read back.
_LINE_BYTES = 1 << 20
#: A Parquet file holds this many results, or those of this many seconds.
_PART_RESULTS, _PART_S = 1000, 5.0


class ArchivedResult(ResultRecord, frozen=True, kw_only=True):
    """A result, and the sha256 of the manifest of the bundle that computed it."""

    bundle: str


class ResultArchive(Protocol):
    """A file that keeps results; ``done`` holds the names of the inputs whose results it had when it was opened."""

    done: frozenset[str]

    def add(self, result: ResultRecord) -> None:
        """Keep a result. Raises `OutputError`."""
        ...

    def close(self) -> None:
        """Write all results that were added. Raises `OutputError`."""
        ...


def open_archive(path: Path, bundle: Path) -> ResultArchive:
    """Open FILE.jsonl, or FILE.parquet, a folder. Raises `OutputError` for another suffix or results of another bundle."""
    bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    if path.suffix == ".jsonl":
        return JsonLinesArchive(path, bundle_sha256)
    if path.suffix == ".parquet":
        return ParquetArchive(path, bundle_sha256)
    raise OutputError(f"--output '{path}': results go to FILE.jsonl or FILE.parquet")


class JsonLinesArchive:
    """A file of one JSON object a line; an incomplete last line is removed when it is opened."""

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
        names, end = set(), 0
        self._stream.seek(0)
        while (line := self._stream.readline(_LINE_BYTES)).endswith(b"\n"):
            try:
                with deferred_signals():
                    archived = msgspec.json.decode(line, type=ArchivedResult)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise OutputError(f"{self._path} holds something other than results; name another file") from None
            _check_bundle(self._path, archived.bundle, self._bundle_sha256)
            names.add(archived.input)
            end += len(line)
        self._stream.truncate(end)
        return names

    def add(self, result: ResultRecord) -> None:
        """Append a line. Raises `OutputError`."""
        try:
            self._stream.write(msgspec.json.encode(_archived(result, self._bundle_sha256)) + b"\n")
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Write everything to the disk."""
        with suppress(OSError):
            os.fsync(self._stream.fileno())
        self._stream.close()


class ParquetArchive:
    """A folder of files of a thousand results each, which readers of Parquet take as one table."""

    def __init__(self, path: Path, bundle_sha256: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise OutputError(
                f"--output FILE.parquet needs the pyarrow library; give FILE.jsonl, or {install('dask')}"
            ) from None
        self._arrow: Any = pyarrow
        self._path, self._bundle_sha256 = path, bundle_sha256
        self._rows: list[dict[str, Any]] = []
        self._written_at = time.monotonic()
        try:
            path.mkdir(exist_ok=True)
            self.done = frozenset(name for part in sorted(path.glob("part-*.parquet")) for name in self._read(part))
        except (OSError, pyarrow.ArrowException) as error:
            raise OutputError(f"cannot continue the results in {path}: {error}; name another folder") from None

    def _read(self, part: Path) -> list[str]:
        columns = self._arrow.parquet.read_table(part, columns=["input", "bundle"]).to_pydict()
        for bundle in set(columns["bundle"]):
            _check_bundle(self._path, bundle, self._bundle_sha256)
        return [str(name) for name in columns["input"]]

    def add(self, result: ResultRecord) -> None:
        """Keep a result for the next file, and write that file when it is due. Raises `OutputError`."""
        self._rows.append(msgspec.to_builtins(_archived(result, self._bundle_sha256)))
        if len(self._rows) >= _PART_RESULTS or time.monotonic() > self._written_at + _PART_S:
            self._write()

    def close(self) -> None:
        """Write the remaining results. Raises `OutputError`."""
        if self._rows:
            self._write()

    def _write(self) -> None:
        rows = [{**row, "outputs": sorted(row["outputs"])} for row in self._rows]
        name = f"part-{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
        partial = self._path / f".{name}"
        try:
            self._arrow.parquet.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema()), partial)
            partial.replace(self._path / name)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None
        self._rows.clear()
        self._written_at = time.monotonic()

    def _schema(self) -> Any:
        arrow = self._arrow
        top = arrow.struct([("index", arrow.int64()), ("label", arrow.string()), ("score", arrow.float64())])
        fields = {"input": arrow.string(), "bundle": arrow.string(), "top": arrow.list_(top)}
        fields |= {"outputs": arrow.list_(arrow.string()), "latency_s": arrow.float64()}
        fields |= {"peak_rss_bytes": arrow.int64(), "budget_bytes": arrow.int64()}
        return arrow.schema(list(fields.items()))


def _archived(result: ResultRecord, bundle_sha256: str) -> ArchivedResult:
    return ArchivedResult(**{name: getattr(result, name) for name in ResultRecord.__struct_fields__}, bundle=bundle_sha256)


def _check_bundle(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise OutputError(f"{path} holds results of another bundle; name another file")
