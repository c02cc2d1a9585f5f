"""Tie ``report.json`` to its manifest: the file holds a document that the runtime does not read, and a hash of both."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from hyps.runtime.bundle.records.fields import Record, Sha256

VERSION: Final = 1
#: The file of a model with 100,000 operators and long names stays below this size.
REPORT_LIMIT_BYTES: Final = 64 << 20


class ReportFile(Record, frozen=True, kw_only=True):
    """The file's contents: ``sha256`` is that of the manifest's bytes followed by the bytes of ``whole``."""

    version: Literal[1]
    sha256: Sha256
    whole: msgspec.Raw

    def belongs_to(self, manifest: bytes) -> bool:
        """Return whether the file was written for the manifest of these bytes."""
        return self.sha256 == _digest(manifest, bytes(self.whole))


def sealed_report(body: bytes, manifest: bytes) -> bytes:
    """Return the file that holds the document ``body`` for the manifest of these bytes."""
    file = ReportFile(version=VERSION, sha256=_digest(manifest, body), whole=msgspec.Raw(body))
    return msgspec.json.encode(file) + b"\n"


def resealed_report(content: bytes, before: bytes, after: bytes) -> bytes | None:
    """Return the file of the manifest ``before`` as that of the manifest ``after``; None where it belongs to neither."""
    try:
        file = msgspec.json.decode(content, type=ReportFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return sealed_report(bytes(file.whole), after) if file.belongs_to(before) else None


def _digest(manifest: bytes, body: bytes) -> str:
    return hashlib.sha256(manifest + body).hexdigest()
