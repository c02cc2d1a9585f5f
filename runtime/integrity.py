"""Is the bundle on disk the one that its manifest describes? Every file there, plain, of its size, and unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hyps.runtime.errors import BundleError
from hyps.runtime.manifest import FileRecord, Manifest


def check_files(bundle: Path, manifest: Manifest, *, models: bool = True, weights: bool = True) -> None:
    """Check that every file is there, plain and of its size; with ``models`` and ``weights``, that those are unchanged.

    Raises `BundleError` with the file's name. Reading is a megabyte at a time: memory does not grow with the bundle.
    """
    hashed = {step.model.path for step in manifest.steps if models}
    hashed |= {step.weights.path for step in manifest.steps if weights and step.weights}
    for file in manifest.files:
        path = bundle / file.path
        try:
            _check_file(bundle, path, file, file.path in hashed)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            raise BundleError(f"cannot read {path}: {reason}; copy the bundle again") from None


def _check_file(bundle: Path, path: Path, file: FileRecord, hashes: bool) -> None:
    if not path.resolve().is_relative_to(bundle.resolve()):
        raise BundleError(f"{path} leads out of the bundle; copy the bundle again, without links")
    if path.is_symlink() or not path.is_file():
        what = "is no plain file" if path.exists() else "is missing"
        raise BundleError(f"{path} {what}; copy the bundle again, or compile the model again")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise BundleError(f"{path} holds {size} bytes, the manifest says {file.size_bytes}; copy the bundle again")
    if hashes and _sha256(path) != file.sha256:
        raise BundleError(f"{path} was changed: its sha256 is not the manifest's; copy the bundle again")


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
