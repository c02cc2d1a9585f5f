"""The types by which long work reports its progress to a command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

#: Advances a progress display by a number of bytes, or of other units of work.
Advance = Callable[[int], None]
#: Opens a progress display with a label and a total (None: unknown), and yields the function that advances it.
OpenProgress = Callable[[str, int | None], AbstractContextManager[Advance]]


def no_progress(label: str, total: int | None) -> nullcontext[Advance]:
    """Open a display that shows nothing."""
    return nullcontext(lambda count: None)
