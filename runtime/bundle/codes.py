"""Codes over the reals: parity shards that replace lost shards of an operator, as data in the manifest.

Hadidi, chapter 6 (coded distributed computing): a shard whose weights are a linear combination of its group's weights makes
the same combination of the group's results. Any k of the k + R results of a group give all of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.exits import with_exits_at
from hyps.runtime.bundle.records.fields import Name, Record
from hyps.runtime.bundle.records.steps import Step

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest

#: The most parity shards of one operator: so many of its shards may be lost.
MOST_PARITY: Final = 4


class CodeRecord(Record, frozen=True, kw_only=True):
    """The code of one operator: the tensors of its ``shards`` in order, and those of its ``parity`` shards.

    All have one shape and type. Parity tensor j is the sum of ``coefficients[j][i]`` times shard i. ``amplification`` is the
    most by which decoding may enlarge the rounding errors of the tensors that it uses, over all patterns of losses.
    ``error_bound`` is the largest error of a decoded value, as a part of the operator's largest output; 0 for integers.
    """

    name: Name
    shards: Annotated[tuple[Name, ...], Meta(min_length=1)]
    parity: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MOST_PARITY)]
    coefficients: tuple[tuple[float, ...], ...]
    amplification: float
    error_bound: float

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors of all shards, those of the parity shards last."""
        return (*self.shards, *self.parity)


def without_parity(manifest: Manifest, keep: Collection[CodeRecord] = ()) -> Manifest:
    """Return the schedule without codes and without the steps that make parity tensors, for engines that lose no shard.

    Codes to ``keep`` stay, with their parity tensors. No other step reads a parity tensor or needs its step's memory, so the
    rest of the schedule stays as it is.
    """
    codes = tuple(code for code in manifest.codes if code in keep)
    parity = _parity_tensors(manifest) - {name for code in codes for name in code.parity}
    kept = [index for index, step in enumerate(manifest.steps) if parity.isdisjoint(step.outputs)]
    tuned = manifest.tuned
    if tuned:
        tuned = msgspec.structs.replace(tuned, steps=tuple(tuned.steps[index] for index in kept))
    steps = tuple(manifest.steps[index] for index in kept)
    tensors = {name: record for name, record in manifest.tensors.items() if name not in parity}
    return msgspec.structs.replace(
        manifest, steps=steps, tuned=tuned, tensors=tensors, codes=codes, exits=with_exits_at(manifest, steps)
    )


def code_problems(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a manifest's codes: the place below ``$.codes``, and the problem."""
    makers: dict[str, Step] = {name: step for step in manifest.steps for name in step.outputs}
    known: set[str] = set()
    names: set[str] = set()
    for index, code in enumerate(manifest.codes):
        where = f"[{index}]"
        if code.name in names:
            yield f"{where}.name", f"{code.name!r} has two codes"
        names.add(code.name)
        if len(code.coefficients) != len(code.parity) or any(len(row) != len(code.shards) for row in code.coefficients):
            yield f"{where}.coefficients", f"no {len(code.parity)} rows of {len(code.shards)} numbers"
        if not all(math.isfinite(number) and number for row in code.coefficients for number in row):
            yield f"{where}.coefficients", "a number is 0 or not finite"
        if not (math.isfinite(code.amplification) and code.amplification > 0):
            yield f"{where}.amplification", "no finite number above 0"
        if not (math.isfinite(code.error_bound) and code.error_bound >= 0):
            yield f"{where}.error_bound", "no finite number from 0 on"
        if missing := [name for name in code.tensors if name not in makers]:
            yield where, f"no step makes {missing[0]!r}"
            continue
        if len(known.union(code.tensors)) < len(known) + len(code.tensors):
            yield where, "a tensor is named twice"
        known.update(code.tensors)
        if any(manifest.tensors[name] != manifest.tensors[code.shards[0]] for name in code.tensors):
            yield where, "its tensors differ in shape or type"
    yield from _misused_parity(manifest, makers)


def _misused_parity(manifest: Manifest, makers: dict[str, Step]) -> Iterator[tuple[str, str]]:
    """Yield where the schedule would not stay whole without parity steps."""
    parity = _parity_tensors(manifest)
    used = {name for step in manifest.steps for name in (*step.inputs, *step.live)}
    used.update(manifest.inputs, (output.name for output in manifest.outputs))
    if used := used & parity:
        yield "", f"{min(used)!r} is a parity tensor, and is used without decoding"
    if mixed := [name for name in sorted(parity & makers.keys()) if not parity.issuperset(makers[name].outputs)]:
        yield "", f"the step that makes {mixed[0]!r} also makes tensors that are not parity"
    if parity and all(not parity.isdisjoint(step.outputs) for step in manifest.steps):
        yield "", "every step makes parity tensors"


def _parity_tensors(manifest: Manifest) -> frozenset[str]:
    return frozenset(name for code in manifest.codes for name in code.parity)
