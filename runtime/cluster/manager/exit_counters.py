"""Count at which exits a manager's jobs end, behind which exits they begin, and what came of their offloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from msgspec import field

from hyps.runtime.bundle.manifest import Count, Manifest
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import Text, shorten

#: The most tiers that are counted by name: a tier above may name any number of them.
_MOST_TIERS = 100


class ExitsLine(Message, frozen=True, kw_only=True):
    """The exits of one manager's jobs since its start.

    ``answered`` counts the jobs that each exit answered, in the order of their depth; ``begun`` those that began behind an
    exit, as a device had offloaded them; ``offloaded`` those whose rest a tier above computed, by that tier; ``fell_back``
    those whose rest went up and was computed here after all.
    """

    answered: dict[Text, Count] = field(default_factory=dict)
    begun: dict[Text, Count] = field(default_factory=dict)
    offloaded: dict[Text, Count] = field(default_factory=dict)
    fell_back: Count = 0


class ExitCounters:
    """The counts since the manager's start; see `ExitsLine`. ``exits`` are the outputs, in the order of their depth."""

    def __init__(self, manifest: Manifest) -> None:
        self._exits = tuple(each.output for each in manifest.exits)
        self._answered: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._offloaded: Counter[str] = Counter()
        self.fell_back = 0

    def began(self, after_exit: int) -> None:
        """Count a job that began behind the exit of this number, from 1 on."""
        self._begun[self._exits[after_exit - 1]] += 1

    def ended(self, made: Collection[str], at: str) -> None:
        """Count a job that ended with these tensors, of which a tier above made the last; ``at`` is empty if none did."""
        reached = [output for output in self._exits if output in made]
        if reached:
            self._answered[reached[-1]] += 1
        if at:
            self._offloaded[at if at in self._offloaded or len(self._offloaded) < _MOST_TIERS else "others"] += 1

    def line(self) -> ExitsLine | None:
        """Return the counts, None for a bundle without exits."""
        if not self._exits:
            return None
        return ExitsLine(
            answered={shorten(output): self._answered[output] for output in self._exits},
            begun={shorten(output): self._begun[output] for output in self._exits if self._begun[output]},
            offloaded={shorten(at): count for at, count in self._offloaded.items()},
            fell_back=self.fell_back,
        )
