"""Read the measurements of a run, which the report compares with the prediction: a JSON list of the steps that ran."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from hyps.compiler.errors import OptionError

#: No run writes a larger file.
PROFILE_LIMIT_BYTES = 64 << 20

_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run, as `hyps.runtime.execution.step_profile.StepProfile` describes it."""

    name: str
    wait_s: _Seconds
    open_s: _Seconds
    run_s: _Seconds
    copy_s: _Seconds
    close_s: _Seconds
    hash_s: _Seconds
    minor_faults: _Count
    major_faults: _Count
    read_bytes: _Count
    resident_bytes: _Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The measurements of each step, by name: the median of several runs, and of memory the maximum."""

    runs: int
    steps: Mapping[str, StepRun]


def read_profile(path: Path, steps: Collection[str]) -> Measurements:
    """Read a profile of these steps; raise `OptionError` if it cannot be read or is of another bundle."""
    try:
        if path.stat().st_size > PROFILE_LIMIT_BYTES:
            raise OptionError(f"--profile: {path} is larger than {PROFILE_LIMIT_BYTES} bytes, so it is no profile of a run")
        entries = msgspec.json.decode(path.read_bytes(), type=list[StepRun])
    except OSError as error:
        raise OptionError(f"--profile: cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"--profile: {path} is no profile of a run, from 'hyps-run --profile-json': {error}") from None
    by_name: dict[str, list[StepRun]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    if not by_name or (unknown := by_name.keys() - set(steps)):
        what = f"it has step {min(unknown)!r}" if by_name else "it has no step"
        raise OptionError(f"--profile: {path} is of another bundle: {what}; name the bundle that ran")
    return Measurements(runs=max(map(len, by_name.values())), steps={name: _median(own) for name, own in by_name.items()})


def _median(entries: list[StepRun]) -> StepRun:
    figures = [field for field in StepRun.__struct_fields__ if field not in ("name", "resident_bytes")]
    middle = {field: median(getattr(entry, field) for entry in entries) for field in figures}
    counts = {field: int(value) for field, value in middle.items() if not field.endswith("_s")}
    return StepRun(name=entries[0].name, resident_bytes=max(entry.resident_bytes for entry in entries), **middle | counts)
