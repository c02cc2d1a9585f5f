"""``hyps-run``: the command, which heeds ctrl-C before it imports what takes long."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.ending import end_at_once


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-run``; exits as `hyps.runtime.ending.EXIT_CODES` tells."""
    end_at_once()
    from hyps.runtime.commands import run

    run(arguments)
