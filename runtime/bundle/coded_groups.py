"""Find the coded groups among sub-bundles: those whose sub-bundles each hold one shard and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedGroup:
    """The shards of one code: ``members`` are their sub-bundles (or runs, by place), those of parity shards last.

    ``margin``: so many results more than there are shards are needed, where they stand in for a vote.
    """

    code: CodeRecord
    members: tuple[int, ...]
    margin: int = 0

    @property
    def shards(self) -> tuple[int, ...]:
        """The members that the network needs."""
        return self.members[: len(self.code.shards)]

    @property
    def parity(self) -> tuple[int, ...]:
        """The members that replace lost ones."""
        return self.members[len(self.code.shards) :]

    @property
    def is_compared(self) -> bool:
        """Whether results are compared with each other before one is used: two parity shards show which is wrong."""
        return len(self.parity) > 1

    def is_served(self, serves: Callable[[int], bool], *, exact: bool = False) -> bool:
        """Return whether enough members are served to decode the others; if ``exact``, whether none need be decoded."""
        has_enough = sum(map(serves, self.members)) >= len(self.code.shards) + self.margin
        return has_enough and (not exact or all(map(serves, self.shards)))


def coded_groups(
    codes: Iterable[CodeRecord], outputs: Mapping[int, Collection[str]], margin: int = 0
) -> tuple[CodedGroup, ...]:
    """Return the groups all of whose shards are made by sub-bundles of their own; ``outputs`` are what each makes."""
    makers = {name: number for number, names in outputs.items() if len(names) == 1 for name in names}
    return tuple(
        CodedGroup(code=code, members=tuple(makers[name] for name in code.tensors), margin=margin)
        for code in codes
        if makers.keys() >= {*code.tensors}
    )


def run_groups(manifest: Manifest, runs: Iterable[range], margin: int = 0) -> tuple[CodedGroup, ...]:
    """Return the groups of a placement's runs; members are places in ``runs``."""
    outputs = {place: manifest.steps[run.start].outputs for place, run in enumerate(runs) if len(run) == 1}
    return coded_groups(manifest.codes, outputs, margin) if manifest.codes else ()


def unserved(
    numbers: Iterable[int], groups: Iterable[CodedGroup], serves: Callable[[int], bool], *, exact: bool = False
) -> tuple[int, ...]:
    """Return the sub-bundles that nothing replaces and nobody serves: coded groups may lack as many as they can decode.

    If a result is to be ``exact``, they may lack parity shards alone.
    """
    spared = {number for group in groups if group.is_served(serves, exact=exact) for number in group.members}
    return tuple(number for number in numbers if number not in spared and not serves(number))
