"""Choose which part of a bundle's schedule a cluster uses: which codes with their parity shards, and which without."""

from __future__ import annotations

from collections.abc import Iterator

from hyps.runtime.bundle.codes import CodeRecord, without_parity
from hyps.runtime.bundle.manifest import Manifest

#: Types that can be decoded: what numpy computes with.
_DECODABLE = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32"})


def served_manifest(manifest: Manifest, *, exact: bool, votes: int = 1) -> Manifest:
    """Return the schedule that a cluster runs, without the parity shards that it cannot use.

    None are used if all results must be ``exact``, nor those of a type that cannot be decoded, nor, where results are put to
    the vote, those of a code that finds fewer wrong results than the vote does (`outvoted`).
    """
    keep = [
        code
        for code in manifest.codes
        if not exact and manifest.tensors[code.shards[0]].dtype in _DECODABLE and len(code.parity) >= 2 * outvoted(votes)
    ]
    return manifest if len(keep) == len(manifest.codes) else without_parity(manifest, keep)


def outvoted(votes: int) -> int:
    """Return how many wrong results of so many a majority outvotes; a code needs two parity shards to name one."""
    return (votes - 1) // 2


def vote_lines(codes: tuple[CodeRecord, ...], served: Manifest, votes: int) -> Iterator[str]:
    """Yield what the operator is told of a bundle's ``codes`` where results are put to the vote."""
    for code in codes:
        if code in served.codes:
            yield f"{code.name}: its parity shards find wrong results, without votes"
        else:
            yield (
                f"{code.name}: {votes} workers vote on each shard, as its {len(code.parity)} parity "
                f"shard{'' if len(code.parity) == 1 else 's'} cannot replace the vote; compile it with --code "
                f"{code.name}={2 * outvoted(votes)} for that"
            )


def schedule_id(bundle_sha256: str, manifest: Manifest) -> str:
    """Return what a journal knows a schedule by: with parity shards, steps and sub-bundles have other numbers."""
    return "+".join((bundle_sha256, *(code.name for code in manifest.codes)))
