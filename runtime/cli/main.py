"""Enter ``hyps-run``: handle ctrl-C first, then import what takes long."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.signals import exit_on_signals


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-run`` and exit with a code of `hyps.runtime.terminal.exit.EXIT_CODES`."""
    exit_on_signals()
    from hyps.runtime.cli.app import run_hyps_run

    run_hyps_run(arguments)
