"""The one seam between who wants a bundle run and what runs it: this process, or a cluster behind a hub.

Both carry out the manifest's schedule; nothing in the manifest, the passes or the commands knows which of them does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest

if TYPE_CHECKING:
    from hyps.runtime.execution.executor import StepProfile


class Engine(Protocol):
    """Computes a bundle's outputs from its inputs (Kaboubi, section 3.3.1.3)."""

    @property
    def manifest(self) -> Manifest:
        """What it runs."""
        ...

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        watch: Callable[[StepProfile], None] | None = None,
        *,
        again: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """The model's outputs by name; see `hyps.runtime.execution.executor.Executor.run`."""
        ...

    def room_bytes(self) -> int:
        """Memory that reading the next input may take."""
        ...

    def make_room(self) -> None:
        """Give back what can be had again, to read an input."""
        ...
