"""Fetch a worker's files from its manager, check them, and keep them by content.

    CACHE/files/SHA256          a complete, checked file; SHA256.part is a download that can be resumed
    CACHE/sub-bundles/SHA256/   a sub-bundle as a bundle: its manifest, and links to files

A worker that is started again, or given a sub-bundle again, downloads nothing twice.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import ssl
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hyps.runtime.bundle.integrity import MANIFEST_LIMIT_BYTES
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.errors import BundleError, OutputError

_PIECE_BYTES = 1 << 18
_TIMEOUT_S = 20
_TRIES = 5
_log = logging.getLogger(__name__)


class FileCache:
    """A worker's cache of files and sub-bundles in ``folder``, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self._files, self._sub_bundles = folder / "files", folder / "sub-bundles"
        self.fetched_bytes = 0
        try:
            for path in (self._files, self._sub_bundles):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cannot keep partitions in {folder}: {error.strerror}; give another --cache") from None

    def fetch(self, orders: Orders, order: SubBundleOrder) -> Path:
        """Return the folder of a sub-bundle, after fetching the files that are not here.

        Raises `BundleError` if that fails, and `OutputError` if the folder cannot be written.
        """
        if order.size_bytes > MANIFEST_LIMIT_BYTES:
            raise BundleError(f"sub-bundle {order.number}: a manifest of {order.size_bytes} bytes")
        document = self._file(orders, order.sha256, order.size_bytes)
        try:
            manifest = msgspec.json.decode(document.read_bytes(), type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(f"sub-bundle {order.number}: {error}") from None
        folder = self._sub_bundles / order.sha256
        try:
            (folder / "partitions").mkdir(parents=True, exist_ok=True)
            for file in manifest.files:
                _link(self._file(orders, file.sha256, file.size_bytes), folder / file.path)
            _link(document, folder / MANIFEST_NAME)  # last: with it the bundle is complete
            os.utime(folder)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}") from None
        return folder

    def prune(self, keep: Collection[str], limit_bytes: int) -> None:
        """Delete sub-bundles, the longest unused first, until all files are within the limit.

        Those whose sha256 is in ``keep`` stay.
        """
        with suppress(OSError):  # the next call may succeed
            unused = [folder for folder in self._sub_bundles.iterdir() if folder.name not in keep]
            unused.sort(key=lambda folder: folder.stat().st_mtime)
            while unused and sum(file.stat().st_size for file in self._files.iterdir()) > limit_bytes:
                shutil.rmtree(unused.pop(0))
                for file in self._files.iterdir():
                    if file.stat().st_nlink == 1:  # no sub-bundle links to it
                        file.unlink()

    def _file(self, orders: Orders, sha256: str, size_bytes: int) -> Path:
        path = self._files / sha256
        if path.is_file() and path.stat().st_size == size_bytes:
            return path
        partial = path.with_suffix(".part")
        reason = ""
        for _ in range(_TRIES):
            try:
                self._download(orders, sha256, size_bytes, partial)
                return partial.replace(path)
            except (http.client.HTTPException, OSError, _UnexpectedContent) as error:
                reason = str(error)
                _log.warning("fetching a file of %d bytes broke off: %s", size_bytes, error)
        raise BundleError(f"cannot fetch a file of {size_bytes} bytes from {orders.url}: {reason}")

    def _download(self, orders: Orders, sha256: str, size_bytes: int, partial: Path) -> None:
        """Resume a download where the last try ended. Raises `_UnexpectedContent` if the result is another file."""
        with partial.open("ab") as stream:
            if stream.tell() > size_bytes:
                stream.truncate(0)
            start = stream.tell()
            if start < size_bytes or not size_bytes:
                connection = _connect(orders)
                try:
                    headers = {"Authorization": f"Bearer {orders.token}", "Range": f"bytes={start}-"}
                    connection.request("GET", f"/{sha256}", headers=headers)
                    answer = connection.getresponse()
                    if answer.status != 206:
                        raise _UnexpectedContent(f"the manager answers {answer.status}")
                    while piece := answer.read(min(_PIECE_BYTES, size_bytes - stream.tell())):
                        stream.write(piece)
                        self.fetched_bytes += len(piece)
                finally:
                    connection.close()
            stream.flush()
            os.fsync(stream.fileno())
            if stream.tell() < size_bytes:
                raise _UnexpectedContent(f"it ends after {stream.tell()} bytes")
        with partial.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                partial.unlink()
                raise _UnexpectedContent("its sha256 is another")


class _UnexpectedContent(Exception):
    """The manager sent something else than the file that was asked for."""


def _connect(orders: Orders) -> http.client.HTTPConnection:
    try:
        url = urlsplit(orders.url)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise BundleError(f"'{orders.url}' is not an address of a manager's file server") from None
    if url.scheme == "https" and orders.authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=orders.authority)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    if url.scheme != "http":
        raise BundleError(f"'{orders.url}' is not an address of a manager's file server")
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)


def _link(source: Path, target: Path) -> None:
    """Give a file another name as well, or copy it if the file system has no links."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    partial = target.with_name(f".{target.name}.part")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
