"""Start ``hypsc``: handle ctrl-C and SIGTERM before the imports that take long."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from functools import partial

from hyps.runtime.errors import HypsError
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.suggestions import install
from hyps.runtime.terminal.console import say
from hyps.runtime.terminal.exit import run_and_exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hypsc`` and exit with a code of `hyps.runtime.terminal.exit.EXIT_CODES`."""
    exit_on_signals()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
    try:
        from hyps.compiler.cli.app import run_hypsc
    except ModuleNotFoundError as error:  # a device has the runtime alone
        if error.name is None or error.name.partition(".")[0] == "hyps":
            raise
        sys.exit(say(f"the compiler needs the {error.name} library; {install('compiler')}", "hypsc"))

    gc.freeze()  # imported modules stay alive: scanning them for garbage would cost a tenth of the start-up
    unwind_on_signals()
    run_and_exit("hypsc", partial(run_hypsc, arguments), (HypsError,))
