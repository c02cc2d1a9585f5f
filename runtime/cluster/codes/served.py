"""Choose which part of a bundle's schedule a cluster uses: with its parity shards, or without."""

from __future__ import annotations

from hyps.runtime.bundle.manifest import Manifest

#: Types that can be decoded: what numpy computes with.
_DECODABLE = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32"})


def served_manifest(manifest: Manifest, *, exact: bool) -> Manifest:
    """Return the schedule that a cluster runs: without parity shards if results must be ``exact`` or cannot be decoded."""
    if exact or any(manifest.tensors[code.shards[0]].dtype not in _DECODABLE for code in manifest.codes):
        return manifest.without_parity()
    return manifest


def schedule_id(bundle_sha256: str, manifest: Manifest) -> str:
    """Return what a journal knows a schedule by: with parity shards, steps and sub-bundles have other numbers."""
    return f"{bundle_sha256}+codes" if manifest.codes else bundle_sha256
