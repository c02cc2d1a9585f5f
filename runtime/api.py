"""Load and run bundles from Python: ``hyps.runtime.load(folder)``, then `Bundle.run` or `Bundle.classify`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.device.process_memory import give_back_heap
from hyps.runtime.errors import BundleError, InputError
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.step_profile import StepProfile
from hyps.runtime.exits.exit_control import exit_control
from hyps.runtime.exits.report import ExitReport
from hyps.runtime.io.inputs import InputSource, read_tensors
from hyps.runtime.io.results import ClassScore, top_classes
from hyps.runtime.tiers import open_tier

#: A photograph: the path of a file, the bytes of one, or pixels [height, width] or [height, width, 3] from 0 to 255.
Photograph = Path | str | bytes | NDArray[np.uint8]
#: Called after each step with the number of steps that are done, and of all. An exception that it raises ends the run.
RunProgress = Callable[[int, int], None]
#: The memory that decoding a picture may take here; for ``hyps-run`` the budget bounds it.
_DECODING_BYTES = 1 << 30


class Bundle:
    """A bundle in this process; a context manager that gives the bundle's memory back at its end.

    Thread-safe: it computes one inference at a time, and other threads wait. The manifest's budget is for the whole process
    of ``hyps-run``; here the memory of your own program comes on top. `hyps.runtime.lean` keeps that small.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        threads: int | None = None,
        verify: bool = True,
        custom_ops: Path | str | None = None,
        is_tuned: bool = True,
        exit_policy: str = "never",
        deadline_s: float = math.inf,
        offload: str | None = None,
        offload_wait_s: float = 0.0,
    ) -> None:
        opener = partial(open_session, custom_ops=Path(custom_ops) if custom_ops else None)
        self._executor: Executor | None = load_executor(
            Path(folder), threads=threads, verify=verify, opener=opener, is_tuned=is_tuned
        )
        self._lock = threading.Lock()
        self.manifest: Manifest = self._executor.manifest
        above = partial(open_tier, Path(folder), offload, offload_wait_s) if offload else None
        self._exits = exit_control(self.manifest, exit_policy, deadline_s=deadline_s, tier=above)

    @property
    def inputs(self) -> dict[str, TensorRecord]:
        """The inputs of `run`: numpy's dtype and the shape, by name."""
        return {name: self.manifest.tensors[name] for name in self.manifest.inputs}

    @property
    def outputs(self) -> dict[str, TensorRecord]:
        """The outputs of `run`: numpy's dtype and the shape, by name."""
        return {output.name: self.manifest.tensors[output.name] for output in self.manifest.outputs}

    def run(self, inputs: Mapping[str, NDArray[Any]], progress: RunProgress | None = None) -> dict[str, NDArray[Any]]:
        """Return the model's outputs by name, computed from arrays by name with the dtypes and shapes of `Bundle.inputs`.

        Where an exit policy ends the run, these are the outputs that were made by then. ``progress`` is called after each
        step with the steps done and their number. Raises `hyps.runtime.errors.InputError` for other inputs, `BundleError`
        for a bundle that was changed or closed.
        """
        return self.run_to_exit(inputs, progress)[0]

    def run_to_exit(
        self, inputs: Mapping[str, NDArray[Any]], progress: RunProgress | None = None
    ) -> tuple[dict[str, NDArray[Any]], ExitReport | None]:
        """Do as `run` does, and also return which exit answered; None where the bundle has no exit policy."""
        done, count = 0, len(self.manifest.steps)

        def step_done(profile: StepProfile | None) -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, count)

        with self._lock:
            if self._executor is None:
                raise BundleError("the bundle is closed; load it again")
            exits = self._exits.begin() if self._exits else None
            outputs = self._executor.run(inputs, step_done, again=True, exits=exits)
        return outputs, exits.report if exits else None

    def preprocess(self, photograph: Photograph) -> dict[str, NDArray[Any]]:
        """Return the inputs of `run` that a photograph, or a .npy or .npz file, becomes by the bundle's preprocessing.

        Raises `hyps.runtime.errors.InputError` for a file that is damaged or none of these, and for a bundle that was
        compiled without ``--preprocess``.
        """
        if isinstance(photograph, np.ndarray):
            return self._from_pixels(photograph)
        content = photograph if isinstance(photograph, bytes) else Path(photograph)
        name = "the photograph" if isinstance(photograph, bytes) else str(photograph)
        return dict(read_tensors(InputSource(name=name, content=content), self.manifest, _DECODING_BYTES))

    def top(self, outputs: Mapping[str, NDArray[Any]], count: int = 5) -> tuple[ClassScore, ...]:
        """Return the ``count`` classes with the highest probabilities in what `run` returned, with their labels.

        Raises `BundleError` where the first output is no vector of classes, `InputError` for scores that are not numbers.
        """
        classes = top_classes(self.manifest, outputs, count)
        if not classes:
            raise BundleError(
                f"output {self.manifest.outputs[0].name!r} is no vector of scores of classes",
                "use run, or compile with --labels or --preprocess",
            )
        return classes

    def classify(self, photograph: Photograph, top: int = 5) -> tuple[ClassScore, ...]:
        """Return the ``top`` classes of a photograph, best first: index, label and score. See `preprocess` and `top`."""
        return self.top(self.run(self.preprocess(photograph)), top)

    def close(self) -> None:
        """Give all memory back; a second call does nothing."""
        with self._lock:
            if self._executor is not None:
                if self._exits:
                    self._exits.close()
                self._executor.close()
                self._executor = None
                give_back_heap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _from_pixels(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        recipe = self.manifest.preprocess
        if recipe is None:
            raise InputError("this bundle takes no images", "compile it with --preprocess, or call run with tensors")
        if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2 or not pixels.size:
            raise InputError(
                f"pixels of type {pixels.dtype} and shape {list(pixels.shape)} are no photograph",
                "give uint8 [height, width] or [height, width, 3]",
            )
        from PIL import Image  # Pillow costs memory that tensors do not need

        from hyps.runtime.io.images import to_tensor

        picture = Image.fromarray(pixels).convert("L" if recipe.colour == "L" else "RGB")
        return {self.manifest.inputs[0]: to_numpy(to_tensor(picture, recipe))}


def load(
    folder: Path | str,
    *,
    threads: int | None = None,
    verify: bool = True,
    custom_ops: Path | str | None = None,
    is_tuned: bool = True,
    exit_policy: str = "never",
    deadline_s: float = math.inf,
    offload: str | None = None,
    offload_wait_s: float = 0.0,
) -> Bundle:
    """Load the bundle in ``folder``, made by ``hypsc compile`` or `hyps.compiler.compile_model`.

    ``threads`` is at most the number it was compiled for; ``verify`` compares every file's sha256 before the file is used.
    ``is_tuned=False`` runs a tuned bundle as it was compiled. ``exit_policy`` and ``deadline_s`` say where a run ends, as
    ``hyps-run --exit-policy`` and ``--deadline`` do. ``offload`` is the tier above, as for ``--offload``, whose link is
    waited for ``offload_wait_s`` at most. Raises `hyps.runtime.exits.policy_header.PolicyError` for a policy that is none,
    `hyps.runtime.errors.BundleError` when the bundle is not whole or was tuned for another processor, `BudgetError` for too
    many threads, `HubError` for an address that is none.
    """
    return Bundle(
        folder,
        threads=threads,
        verify=verify,
        custom_ops=custom_ops,
        is_tuned=is_tuned,
        exit_policy=exit_policy,
        deadline_s=deadline_s,
        offload=offload,
        offload_wait_s=offload_wait_s,
    )
