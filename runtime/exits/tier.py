"""The seam between an exit and the tier above, which may compute the rest of an inference (Seifeddine, section 3.3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hyps.runtime.exits.link_meter import LinkState
from hyps.runtime.exits.report import EndedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class RestAnswer:
    """What the tier above made of the rest of an inference, or why it made nothing of it: ``problem``.

    ``outputs`` are those that were made there, up to the one of the exit of number ``exit``, from 1 on. ``at`` are the
    addresses of the tiers that it went through. ``sent_bytes`` went up.
    """

    problem: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    exit: int = 0
    ended_by: EndedBy = "network"
    at: str = ""
    sent_bytes: int = 0


class NextTier(Protocol):
    """The tier above, and the link to it, which may not be there yet or any more."""

    @property
    def address(self) -> str:
        """Where it is."""
        ...

    def link(self, after_exit: int | None = None) -> LinkState | None:
        """Return what the link was measured to be; None while no rest can go up behind this exit, or behind any."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until there is a link, for so long at most."""
        ...

    def complete(self, after_exit: int, tensors: Mapping[str, Any], within_s: float) -> RestAnswer:
        """Have the rest of an inference computed behind the exit of this number, from 1 on, within these seconds.

        ``tensors`` are `hyps.runtime.bundle.exits.rest_inputs`; they stay as they are.
        """
        ...

    def close(self) -> None:
        """Give the link back."""
        ...
