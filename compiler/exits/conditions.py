"""Describe the conditions under which a policy decides: energy and time, the link to the next tier, the deadline."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.recorded import RecordedExits
from hyps.runtime.exits.state import ExitState

Above0 = Annotated[float, Meta(gt=0)]
FromZero = Annotated[float, Meta(ge=0)]
Chance = Annotated[float, Meta(ge=0, le=1)]
#: Larger files are refused.
_FILE_BYTES = 1 << 20


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a conditions file.

    ``joules`` and ``seconds`` are those of one inference by the whole network; they are spread over the exits by
    multiply-adds. Each inference has both times a factor drawn from 1 - ``variation`` to 1 + ``variation``. Its link has a
    ``bandwidth`` drawn between two bytes a second, every order of magnitude alike, or with chance ``no_link`` none. While
    tensors cross, the radio takes ``radio_watts``, and ``idle_watts`` while the next tier computes, ``tier_speed`` times as
    fast. ``deadline`` is drawn between two numbers of seconds; a later answer is as good as a wrong one.
    """

    joules: Above0
    seconds: Above0
    variation: Chance = 0.0
    bandwidth: tuple[Above0, Above0] | None = None
    round_trip: FromZero = 0.0
    no_link: Chance = 0.0
    radio_watts: FromZero = 0.0
    idle_watts: FromZero = 0.0
    tier_speed: Above0 = 10.0
    deadline: tuple[Above0, Above0] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """The conditions of one inference: ``joules`` and ``seconds`` from the start to each exit, the link, the deadline."""

    joules: tuple[float, ...]
    seconds: tuple[float, ...]
    bandwidth: float = 0.0
    round_trip: float = 0.0
    deadline: float = math.inf


def read_conditions(path: Path) -> Conditions:
    """Return the conditions in a TOML file. Raises `OptionError`."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise OptionError(f"--conditions: {path} is larger than {_FILE_BYTES} bytes; name another file")
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8-sig")), Conditions)
    except OSError as error:
        raise OptionError(f"--conditions: cannot read {path}: {error.strerror}; name another file") from None
    except (ValueError, RecursionError) as error:  # invalid TOML or UTF-8, or a wrong or unknown key
        raise OptionError(f"--conditions: {path}: {error}; see the guide's page on exit policies") from None
    for name in ("bandwidth", "deadline"):
        span = getattr(found, name)
        if span and not span[0] <= span[1] < math.inf:
            raise OptionError(f"--conditions: {path}: {name} = {list(span)} is no range; write the smaller number first")
    return found


def draw_episode(recorded: RecordedExits, conditions: Conditions | None, random: np.random.Generator) -> Episode:
    """Return the conditions of one inference. Without ``conditions`` every exit costs 1, and nothing else is known.

    That is the report's validation (Seifeddine, chapter 4): the cost is the length of the episode.
    """
    if conditions is None:
        exits = len(recorded.names)
        return Episode(joules=tuple(map(float, range(1, exits + 1))), seconds=(0.0,) * exits)
    factor = random.uniform(1 - conditions.variation, 1 + conditions.variation)
    shares = [factor * work / recorded.multiply_adds[-1] for work in recorded.multiply_adds]
    has_link = conditions.bandwidth is not None and random.random() >= conditions.no_link
    bandwidth = _log_uniform(conditions.bandwidth, random) if conditions.bandwidth and has_link else 0.0
    return Episode(
        joules=tuple(conditions.joules * share for share in shares),
        seconds=tuple(conditions.seconds * share for share in shares),
        bandwidth=bandwidth,
        round_trip=conditions.round_trip if has_link else 0.0,
        deadline=random.uniform(*conditions.deadline) if conditions.deadline else math.inf,
    )


def exit_state(recorded: RecordedExits, index: int, place: int, episode: Episode, *, is_costed: bool) -> ExitState:
    """Return the state of input ``index`` at exit ``place``; the joules are known if ``is_costed``, else 0."""
    return ExitState(
        probabilities=recorded.probabilities[index, place],
        exit=place,
        seconds=episode.seconds[place],
        joules=episode.joules[place] if is_costed else 0.0,
        bandwidth_bytes_per_s=episode.bandwidth,
        round_trip_s=episode.round_trip,
        seconds_left=episode.deadline - episode.seconds[place],
    )


def _log_uniform(span: tuple[float, float], random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(math.log(span[0]), math.log(span[1]))))
