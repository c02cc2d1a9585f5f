"""``hypsc``: the command, which heeds ctrl-C before it imports what takes long."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from functools import partial

from hyps.runtime.ending import end_at_once, end_tidily, ended


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hypsc``; exits as `hyps.runtime.ending.EXIT_CODES` tells."""
    end_at_once()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
    from hyps.compiler.commands import MENDABLE, run

    gc.freeze()  # what was imported stays: looking through it for garbage would cost a tenth of the start-up
    end_tidily()
    ended("hypsc", partial(run, arguments), MENDABLE)
