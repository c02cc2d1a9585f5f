"""What a run measured, to set beside the prediction: a JSON list with an entry for every step that ran."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from hyps.compiler.errors import OptionError

#: A larger file is none that a run wrote.
PROFILE_LIMIT_BYTES = 64 << 20

_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run: seconds to open and to run it, bytes read from storage, resident bytes of the process."""

    name: str
    load_s: _Seconds
    run_s: _Seconds
    read_bytes: _Count
    resident_bytes: _Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What was measured of each step, by its name; of several runs the median, of memory the most."""

    runs: int
    steps: Mapping[str, StepRun]


def read_profile(path: Path, steps: Collection[str]) -> Measurements:
    """Read a profile of the steps called so. Raises `OptionError` for what is none, or another bundle's."""
    try:
        if path.stat().st_size > PROFILE_LIMIT_BYTES:
            raise OptionError(f"--profile: {path} is larger than {PROFILE_LIMIT_BYTES} bytes: no profile of a run")
        entries = msgspec.json.decode(path.read_bytes(), type=list[StepRun])
    except OSError as error:
        raise OptionError(f"--profile: cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"--profile: {path} is no profile of a run: {error}") from None
    by_name: dict[str, list[StepRun]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    if not by_name or (strange := by_name.keys() - set(steps)):
        what = f"it has step {min(strange)!r}" if by_name else "it has no step"
        raise OptionError(f"--profile: {path} is of another bundle: {what}")
    return Measurements(runs=max(map(len, by_name.values())), steps={name: _middle(own) for name, own in by_name.items()})


def _middle(entries: list[StepRun]) -> StepRun:
    return StepRun(
        name=entries[0].name,
        load_s=median(entry.load_s for entry in entries),
        run_s=median(entry.run_s for entry in entries),
        read_bytes=int(median(entry.read_bytes for entry in entries)),
        resident_bytes=max(entry.resident_bytes for entry in entries),
    )
