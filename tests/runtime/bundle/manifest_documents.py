"""Change manifests for tests, and read the line with which a changed one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.errors import BundleError

DocumentPath = tuple[str | int, ...]
MISSING = object()


def put(document: Any, path: DocumentPath, value: object) -> None:
    """Set the value at ``path``, or remove it with ``MISSING``."""
    *parents, last = path
    for key in parents:
        document = document[key]
    if value is MISSING:
        del document[last]
    else:
        document[last] = value


def refusal(bundle: Path, document: bytes) -> str:
    """Return the one line with which ``document`` is refused, with M for the manifest's own path."""
    path = bundle / MANIFEST_NAME
    path.write_bytes(document)
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "M")


def changed(manifest: Manifest, *changes: tuple[DocumentPath, object]) -> bytes:
    document = json.loads(encode_manifest(manifest))
    for path, value in changes:
        put(document, path, value)
    return json.dumps(document).encode()
