"""Load and run bundles from Python: ``hyps.runtime.load(folder)``, then `Bundle.run`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.errors import BundleError
from hyps.runtime.execution import executor
from hyps.runtime.execution.session import open_session


class Bundle:
    """A bundle in this process; a context manager that gives the bundle's memory back at its end.

    Thread-safe: it computes one inference at a time, and other threads wait. The manifest's budget is for the whole process
    of ``hyps-run``; here the memory of your own program comes on top.
    """

    def __init__(
        self, folder: Path | str, *, threads: int | None = None, verify: bool = True, custom_ops: Path | str | None = None
    ) -> None:
        opener = partial(open_session, custom_ops=Path(custom_ops) if custom_ops else None)
        self._executor: executor.Executor | None = executor.load_executor(
            Path(folder), threads=threads, verify=verify, opener=opener
        )
        self._lock = threading.Lock()
        self.manifest: Manifest = self._executor.manifest

    @property
    def inputs(self) -> dict[str, TensorRecord]:
        """The inputs of `run`: numpy's dtype and the shape, by name."""
        return {name: self.manifest.tensors[name] for name in self.manifest.inputs}

    @property
    def outputs(self) -> dict[str, TensorRecord]:
        """The outputs of `run`: numpy's dtype and the shape, by name."""
        return {output.name: self.manifest.tensors[output.name] for output in self.manifest.outputs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the model's outputs by name, computed from arrays by name with the dtypes and shapes of `Bundle.inputs`.

        Raises `hyps.runtime.errors.InputError` for other inputs, `BundleError` for a bundle that was changed or closed.
        """
        with self._lock:
            if self._executor is None:
                raise BundleError("the bundle is closed; load it again")
            return self._executor.run(inputs, again=True)

    def close(self) -> None:
        """Give all memory back; a second call does nothing."""
        with self._lock:
            self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(
    folder: Path | str, *, threads: int | None = None, verify: bool = True, custom_ops: Path | str | None = None
) -> Bundle:
    """Load the bundle in ``folder``, made by ``hypsc compile`` or `hyps.compiler.compile_model`.

    ``threads`` is at most the number it was compiled for; ``verify`` compares every file's sha256 before the file is used.
    Raises `hyps.runtime.errors.BundleError` when the bundle is not whole, `BudgetError` for too many threads.
    """
    return Bundle(folder, threads=threads, verify=verify, custom_ops=custom_ops)
