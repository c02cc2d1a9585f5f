"""Keep models and bundles on the manager's disk, each in a folder whose name cannot point elsewhere.

models/NAME/     the .onnx file, its external data, labels.txt
bundles/NAME/    a bundle, as 'hypsc compile' writes it
journals/NAME/   the journal of the bundle's jobs
spool/           inputs and outputs of the page's jobs, unfinished uploads and compilations
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
from hyps.runtime.web.errors import Conflict, Missing, TooLarge, WebFault
from hyps.runtime.web.schemas import BundleLine, ModelFile, ModelLine

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_NAMES = "has 1 to 100 letters, digits, dots, - and _, and begins with a letter or digit"
#: Bytes of the disk that uploads leave free: a full disk stops the journal, too.
_SPARE_BYTES = 256 << 20
_PIECE_BYTES = 1 << 20
#: Seconds for which the rest of a refused upload is read.
_DRAIN_S = 10.0


def checked(name: str) -> str:
    """Return a name that may be a file's or a folder's here. Raises `WebFault` for any other."""
    if not _NAME.match(name):
        raise WebFault(f"a name {_NAMES}")
    return name


class Library:
    """The models and bundles in ``folder``; ``given`` is a bundle elsewhere, which is listed and never changed."""

    def __init__(self, folder: Path, given: Path | None, *, limit_bytes: int) -> None:
        self._folder, self._given, self._limit_bytes = folder, given, limit_bytes
        self._lines: dict[Path, tuple[int, BundleLine]] = {}  # by folder, with the manifest's mtime
        self._lock = threading.Lock()
        if given and not _NAME.match(given.name):
            raise OutputError(
                f"a bundle is served under its folder's name, and {given.name!r} cannot be one: a name {_NAMES}; "
                "rename the folder"
            )
        try:
            for name in ("models", "bundles", "journals", "spool"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (folder / "spool").iterdir():  # a manager that was killed left these
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot keep models and bundles in {folder}: {error.strerror}; name another --library"
            ) from None

    @property
    def spool(self) -> Path:
        """The folder of temporary files."""
        return self._folder / "spool"

    def journal(self, bundle: str) -> Path:
        """Return the folder of a bundle's journal."""
        return self._folder / "journals" / bundle

    def models(self) -> list[ModelLine]:
        """Return all models, sorted by name."""
        return [self._model(path) for path in sorted((self._folder / "models").iterdir()) if path.is_dir()]

    def model(self, name: str) -> Path:
        """Return a model's .onnx file. Raises `Missing`, or `Conflict` if there is not exactly one."""
        folder = self._folder / "models" / checked(name)
        if not folder.is_dir():
            raise Missing(f"model {name} does not exist; upload it first")
        files = sorted(folder.glob("*.onnx"))
        if len(files) != 1:
            raise Conflict(f"model {name} has {len(files)} .onnx files; delete the model and upload it with exactly one")
        return files[0]

    async def upload(self, model: str, file: str, body: AsyncIterator[bytes]) -> ModelLine:
        """Write a model's file as its bytes arrive. Raises `TooLarge`; nothing is left then."""
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
        """Write an upload to ``path``, completely or not at all. Raises `TooLarge`, `WebFault` if it is empty."""
        limit, count = limit_bytes or self._limit_bytes, 0
        handle, partial = tempfile.mkstemp(prefix=".upload-", dir=self.spool)
        try:
            with os.fdopen(handle, "wb") as stream:
                async for piece in body:
                    count += len(piece)
                    if count > limit:
                        await _drain(body)
                        raise TooLarge(f"the file is too large; an upload may be {limit / 1e6:.0f} MB at most")
                    if not self._has_space(len(piece)):
                        await _drain(body)
                        raise TooLarge("the manager's disk is full; delete models or bundles")
                    stream.write(piece)
            if not count:
                raise WebFault("the body is empty; send the file's bytes")
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)

    def delete_model(self, name: str) -> None:
        """Delete a model. Raises `Missing`."""
        self._delete(self._folder / "models" / checked(name), f"model {name} does not exist")

    def bundles(self, served: str | None) -> list[BundleLine]:
        """Return all bundles whose manifest can be read; ``served`` names the one that is served."""
        lines = []
        for name, path in self._bundles():
            try:
                lines.append(self._line(name, path).model_copy(update={"served": name == served}))
            except RuntimeFault:  # of another version, or damaged
                continue
        return lines

    def bundle(self, name: str) -> Path:
        """Return a bundle's folder. Raises `Missing`."""
        path = dict(self._bundles()).get(checked(name))
        if path is None:
            raise Missing(f"bundle {name} does not exist")
        return path

    def writable(self, name: str) -> Path:
        """Return the folder for a bundle of this name. Raises `Conflict` for the one that the manager was started with."""
        if self._given and checked(name) == self._given.name:
            raise Conflict(f"{name} is the bundle that the manager was started with; choose another name")
        return self._folder / "bundles" / checked(name)

    def keep(self, name: str, folder: Path) -> None:
        """Move a bundle from ``folder`` in the spool into the library; an old one of this name moves beside ``folder``."""
        target = self.writable(name)
        if target.exists():
            target.replace(folder.with_name("before"))
        folder.replace(target)

    def delete_bundle(self, name: str) -> None:
        """Delete a bundle and its journal. Raises `Missing`, `Conflict` for the one that the manager was started with."""
        self._delete(self.writable(name), f"bundle {name} does not exist")
        shutil.rmtree(self.journal(name), ignore_errors=True)

    def archive(self, name: str) -> Iterator[bytes]:
        """Yield a bundle as an uncompressed tar archive, in pieces of up to 1 MiB."""
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
            cached = self._lines.get(path)
        if cached is None or cached[0] != changed:
            cached = changed, _described(name, read_manifest(path))
            with self._lock:
                self._lines[path] = cached
        return cached[1]

    def _model(self, folder: Path) -> ModelLine:
        files = [ModelFile(name=path.name, size_bytes=path.stat().st_size) for path in sorted(folder.iterdir())]
        return ModelLine(name=folder.name, files=files, size_bytes=sum(file.size_bytes for file in files))

    def _has_space(self, nbytes: int) -> bool:
        return shutil.disk_usage(self._folder).free - nbytes > _SPARE_BYTES

    def _delete(self, folder: Path, missing: str) -> None:
        if not folder.is_dir():
            raise Missing(missing)
        shutil.rmtree(folder)


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read and drop the rest of a refused upload: a browser reads the answer only after it has sent everything."""
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
