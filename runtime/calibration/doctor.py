"""Carry out ``hyps-run doctor``: print one line for each check of this device."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from hyps.runtime.calibration.checks import Check
from hyps.runtime.calibration.examination import examine
from hyps.runtime.terminal.console import note, plain, show, styled

_STYLES = {"ok": "32", "warn": "33", "FAIL": "31"}


def doctor(folder: Path, bundle: Path | None, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> int:
    """Examine this device, print the checks, and return the exit code: 1 where one is ``FAIL``, else 0.

    ``quiet`` leaves out checks that are ok. ``verbose`` writes to standard error how long each check took.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # a library's crash leaves no file in the user's folder
    checks: list[Check] = []

    def shown_checks() -> Iterator[Check]:
        began = time.perf_counter()
        for check in examine(folder, bundle):
            checks.append(check)
            if verbose:
                note(f"{check.check}: {time.perf_counter() - began:.2f} s")
            began = time.perf_counter()
            if check.state != "ok" or not quiet:
                yield check

    if as_json:
        show([json.dumps([asdict(check) for check in shown_checks()])])
    else:
        show(map(_line, shown_checks()))
    return int(any(check.state == "FAIL" for check in checks))


def _line(check: Check) -> str:
    """Return a check as a line for people."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", "; ".join(filter(None, (check.found, check.mend))))
    return f"{styled(f'{check.state:4}', _STYLES[check.state], sys.stdout)}  {check.check:13}  {plain(text)}"
