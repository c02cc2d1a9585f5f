"""Models and bundles on the manager's disk: a folder each, under names that cannot lead elsewhere.

models/NAME/*.onnx and its external data      bundles/NAME/, as 'hypsc compile' writes it
journals/NAME/, of each bundle's jobs         spool/, inputs and outputs of the page's jobs
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME, Manifest
from hyps.runtime.errors import OutputError, RuntimeFault
from hyps.runtime.web.errors import Missing, TooLarge, WebFault
from hyps.runtime.web.schemas import BundleLine, ModelFile, ModelLine

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_NAMES = "has 1 to 100 letters, digits, dots, - and _, and begins with a letter or digit"
#: A disk that is full stops more than an upload.
_SPARE_BYTES = 256 << 20
_PIECE_BYTES = 1 << 20
_DRAIN_S = 10.0


def checked(name: str) -> str:
    """A name that is a file's or a folder's here. Raises `WebFault`."""
    if not _NAME.match(name):
        raise WebFault(f"a name {_NAMES}")
    return name


class Library:
    """Everything in ``folder``; ``given`` is a bundle elsewhere that is listed, too, and never removed."""

    def __init__(self, folder: Path, given: Path | None, *, limit_bytes: int) -> None:
        self._folder, self._given, self._limit_bytes = folder, given, limit_bytes
        self._known: dict[Path, tuple[int, BundleLine]] = {}
        self._lock = threading.Lock()
        if given and not _NAME.match(given.name):
            raise OutputError(
                f"a bundle is served under its folder's name, and {given.name!r} is none: it {_NAMES}; rename the folder"
            )
        try:
            for name in ("models", "bundles", "journals", "spool"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in (folder / "spool").iterdir():  # of a manager that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot keep models and bundles in {folder}: {error.strerror}; name another --library"
            ) from None

    @property
    def spool(self) -> Path:
        """Where inputs and outputs of jobs lie."""
        return self._folder / "spool"

    def journal(self, bundle: str) -> Path:
        """Where the jobs of a bundle of ours are written down."""
        return self._folder / "journals" / bundle

    def models(self) -> list[ModelLine]:
        """All models."""
        return [self._model(path) for path in sorted((self._folder / "models").iterdir()) if path.is_dir()]

    def model(self, name: str) -> Path:
        """A model's file. Raises `Missing`, `WebFault` where the folder has none or several."""
        folder = self._folder / "models" / checked(name)
        if not folder.is_dir():
            raise Missing(f"there is no model {name}; upload it first")
        found = sorted(folder.glob("*.onnx"))
        if len(found) != 1:
            raise WebFault(f"model {name} has {len(found)} .onnx files; it needs one")
        return found[0]

    async def upload(self, model: str, file: str, body: AsyncIterator[bytes]) -> ModelLine:
        """Write a model's file as it comes. Raises `TooLarge`; nothing is left then."""
        folder = self._folder / "models" / checked(model)
        checked(file)
        folder.mkdir(exist_ok=True)
        try:
            await self.receive(folder / file, body)
        except BaseException:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        return self._model(folder)

    async def receive(self, path: Path, body: AsyncIterator[bytes], limit_bytes: int | None = None) -> None:
        """Write an upload to ``path``, whole or not at all."""
        limit, count = limit_bytes or self._limit_bytes, 0
        handle, partial = tempfile.mkstemp(prefix=".upload-", dir=self.spool)
        try:
            with os.fdopen(handle, "wb") as stream:
                async for piece in body:
                    count += len(piece)
                    if count > limit:
                        await _drain(body)
                        raise TooLarge(f"an upload may be {limit / 1e6:.0f} MB at most")
                    if not self._room(len(piece)):
                        await _drain(body)
                        raise TooLarge("the manager's disk is full; delete models or bundles")
                    stream.write(piece)
            if not count:
                raise WebFault("the body is empty: send a file's bytes")
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)

    def delete_model(self, name: str) -> None:
        """Remove a model. Raises `Missing`."""
        self._remove(self._folder / "models" / checked(name), f"there is no model {name}")

    def bundles(self, served: str | None) -> list[BundleLine]:
        """All bundles that are whole as far as their manifests say."""
        found = []
        for name, path in self._bundles():
            try:
                found.append(self._line(name, path).model_copy(update={"served": name == served}))
            except RuntimeFault:  # being written, or not ours
                continue
        return found

    def bundle(self, name: str) -> Path:
        """A bundle's folder. Raises `Missing`."""
        path = dict(self._bundles()).get(checked(name))
        if path is None:
            raise Missing(f"there is no bundle {name}")
        return path

    def ours(self, name: str) -> Path:
        """Where a bundle of this name is or would be. Raises `WebFault` for the one that the manager was started with."""
        if self._given and checked(name) == self._given.name:
            raise WebFault(f"{name} is the bundle that the manager was started with; it is not ours to change")
        return self._folder / "bundles" / checked(name)

    def keep(self, name: str, made: Path) -> None:
        """Take in a bundle that was made in the spool, in place of one of this name; that is left beside ``made``."""
        place = self.ours(name)
        if place.exists():
            place.replace(made.with_name("before"))
        made.replace(place)

    def delete_bundle(self, name: str) -> None:
        """Remove a bundle. Raises `Missing`, `WebFault` for the one that the manager was started with."""
        self._remove(self.ours(name), f"there is no bundle {name}")
        shutil.rmtree(self.journal(name), ignore_errors=True)

    def archive(self, name: str) -> Iterator[bytes]:
        """A bundle as an uncompressed tar, piece by piece."""
        folder = self.bundle(name)
        files = [folder / MANIFEST_NAME, *(folder / file.path for file in read_manifest(folder).files)]
        files += [path for path in [folder / REPORT_NAME] if path.is_file()]
        return _tar(name, folder, files)

    def _bundles(self) -> Iterator[tuple[str, Path]]:
        if self._given:
            yield self._given.name, self._given
        for path in sorted((self._folder / "bundles").iterdir()):
            if _NAME.match(path.name) and (path / MANIFEST_NAME).is_file():
                yield path.name, path

    def _line(self, name: str, path: Path) -> BundleLine:
        changed = (path / MANIFEST_NAME).stat().st_mtime_ns
        with self._lock:
            known = self._known.get(path)
        if known is None or known[0] != changed:
            known = changed, _described(name, read_manifest(path))
            with self._lock:
                self._known[path] = known
        return known[1]

    def _model(self, folder: Path) -> ModelLine:
        files = [ModelFile(name=path.name, size_bytes=path.stat().st_size) for path in sorted(folder.iterdir())]
        return ModelLine(name=folder.name, files=files, size_bytes=sum(file.size_bytes for file in files))

    def _room(self, nbytes: int) -> bool:
        return shutil.disk_usage(self._folder).free - nbytes > _SPARE_BYTES

    def _remove(self, folder: Path, missing: str) -> None:
        if not folder.is_dir():
            raise Missing(missing)
        shutil.rmtree(folder)


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Take the rest and forget it: a browser that is still sending does not read why it should not."""
    until = time.monotonic() + _DRAIN_S
    async for _ in body:
        if time.monotonic() > until:
            return


def _described(name: str, manifest: Manifest) -> BundleLine:
    return BundleLine(
        name=name,
        model=manifest.model.name,
        target=manifest.target.name,
        budget_bytes=manifest.budget_bytes,
        steps=len(manifest.steps),
        size_bytes=sum(file.size_bytes for file in manifest.files),
        served=False,
    )


def _tar(name: str, folder: Path, files: list[Path]) -> Iterator[bytes]:
    for path in files:
        info = tarfile.TarInfo(f"{name}/{path.relative_to(folder)}")
        info.size, info.mode = path.stat().st_size, 0o644
        yield info.tobuf()
        left = info.size
        with path.open("rb") as stream:
            while left and (piece := stream.read(min(left, _PIECE_BYTES))):
                left -= len(piece)
                yield piece
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
