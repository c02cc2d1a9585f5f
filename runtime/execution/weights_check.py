"""Check the files of weights that onnxruntime itself reads, while it opens them."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from hyps.runtime.bundle.integrity import check_files
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import BundleError


class WeightsCheck(Thread):
    """A thread that compares the files of a bundle's weights with their sha256, from when it is made.

    Hashing takes a third as long as onnxruntime takes to open VGG16 and to run it once. Most boards have another core.
    """

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        super().__init__(daemon=True)
        self._bundle, self._manifest = bundle, manifest
        self._error: BundleError | None = None
        self.start()

    def run(self) -> None:
        """Read every file; the thread calls this."""
        try:
            check_files(self._bundle, self._manifest, models=False)
        except BundleError as error:
            self._error = error

    def finish(self) -> None:
        """Wait until all files are read, before anything is computed. Raises `BundleError` for one that was changed."""
        self.join()
        if self._error:
            raise self._error
