"""``hyps-run``: the command, which heeds ctrl-C before it imports what takes long."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.signals import exit_on_signals


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-run``; exits as `hyps.runtime.terminal.exit.EXIT_CODES` tells."""
    exit_on_signals()
    from hyps.runtime.cli.app import run_app

    run_app(arguments)
