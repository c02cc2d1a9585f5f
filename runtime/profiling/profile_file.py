"""Define the format of step_profile.json, and read and write it within bounds.

``docs/reference/step_profile.schema.json`` is made from these structs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.fields import Count, Name, Positive, Sha256
from hyps.runtime.errors import ProfileError
from hyps.runtime.io.files import replacing
from hyps.runtime.profiling.board_facts import BoardClass, BoardFacts

PROFILE_VERSION: Final = 1
#: The largest file, and the most steps in it; a thousand steps with four thread counts take a megabyte.
STEP_PROFILE_LIMIT_BYTES: Final = 64 << 20
MAX_PROFILED_STEPS: Final = 100_000
#: The seconds of a step, which may be 0 for one that does nothing, and the number of threads.
StepSeconds = Annotated[float, Meta(ge=0, le=1e6)]
ThreadCount = Annotated[int, Meta(ge=1, le=4096)]


class ProfilePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the values in a step profile."""


class Quartiles(ProfilePart, frozen=True, kw_only=True):
    """The quartiles of a step's measured seconds. ``lower`` and ``upper`` are the first and the third.

    Raises `ValueError` where they are not in order.
    """

    lower: StepSeconds
    median: StepSeconds
    upper: StepSeconds

    def __post_init__(self) -> None:
        if not self.lower <= self.median <= self.upper:
            raise ValueError("the quartiles are not in order")


class ThreadTimes(ProfilePart, frozen=True, kw_only=True):
    """The times of one step with this number of ``threads``, in seconds.

    - ``run_s``: with all weights in memory and the session open, over so many ``runs``;
    - ``open_s``: to open its session;
    - ``stored_s``: the whole step when its files come from storage: reading, opening and running. Null where storage could
      not be read, as when the file system is in memory;
    - ``read_bytes``: what storage had to read for that;
    - ``peak_bytes``: the largest resident memory of the process while the step ran, 0 where the kernel does not say.
    """

    threads: ThreadCount
    runs: Positive
    run_s: Quartiles
    open_s: Quartiles
    stored_s: Quartiles | None
    read_bytes: Count
    peak_bytes: Count


class ProfiledStep(ProfilePart, frozen=True, kw_only=True):
    """One step: what it computes (`hyps.runtime.profiling.step_content`), and its times by number of threads."""

    name: Name
    key: Sha256
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    multiply_adds: Count
    weight_bytes: Count
    tensor_bytes: Count
    operators: Count
    times: Annotated[tuple[ThreadTimes, ...], Meta(min_length=1, max_length=64)]


class StepProfileFile(ProfilePart, frozen=True, kw_only=True):
    """The content of step_profile.json: the steps of one bundle on one board.

    ``bundle`` is the sha256 of the bundle's manifest, ``network`` the model's name. ``board_class`` is by default the class
    that ``board`` says (`hyps.runtime.profiling.board_facts`).
    """

    version: Literal[1]
    created_by: Annotated[str, Meta(max_length=100)]
    bundle: Sha256
    network: Annotated[str, Meta(max_length=500)]
    board_class: BoardClass
    board: BoardFacts
    steps: Annotated[tuple[ProfiledStep, ...], Meta(min_length=1, max_length=MAX_PROFILED_STEPS)]


def read_step_profile(path: Path) -> StepProfileFile:
    """Read a step profile. Raises `ProfileError` for a file that is none, is too large, or is of another version."""
    again = "make it with 'hyps-run profile BUNDLE -o FILE'"
    try:
        with path.open("rb") as stream:
            data = stream.read(STEP_PROFILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}", again) from None
    if len(data) > STEP_PROFILE_LIMIT_BYTES:
        raise ProfileError(f"{path} is over {STEP_PROFILE_LIMIT_BYTES >> 20} MiB, more than any step profile", again)
    try:
        return msgspec.json.decode(data, type=StepProfileFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProfileError(f"{path} is no step profile of version {PROFILE_VERSION}: {error}", again) from None


def write_step_profile(path: Path, profile: StepProfileFile) -> None:
    """Write a step profile, whole or not at all. Raises `OutputError`."""
    with replacing(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
