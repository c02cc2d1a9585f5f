"""Define what a fuzz target is: something that reads input from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.mutation import damaged_bytes

Read = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads input from elsewhere, as the product does.

    ``seeds`` returns valid inputs. ``reader`` gets a scratch folder, and returns the function that reads one input; it may
    raise only ``mendable`` errors of one line. A case may take ``seconds``, and may grow the process by ``grown_bytes``.
    """

    seeds: Callable[[Path], Sequence[bytes]]
    reader: Callable[[Path], Read]
    mendable: tuple[type[Exception], ...]
    damaged: Callable[[Sequence[bytes]], st.SearchStrategy[bytes]] = damaged_bytes
    seconds: float = 20.0
    grown_bytes: int = 100_000_000
