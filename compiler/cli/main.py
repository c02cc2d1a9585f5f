"""``hypsc``: the command, which heeds ctrl-C before it imports what takes long."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from functools import partial

from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hypsc``; exits as `hyps.runtime.terminal.exit.EXIT_CODES` tells."""
    exit_on_signals()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
    from hyps.compiler.cli.app import MENDABLE, run_app

    gc.freeze()  # what was imported stays: looking through it for garbage would cost a tenth of the start-up
    unwind_on_signals()
    run_and_exit("hypsc", partial(run_app, arguments), MENDABLE)
