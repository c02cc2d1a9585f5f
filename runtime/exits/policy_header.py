"""Name the exits that a policy is for, and check a policy's header, which every kind of policy file has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hyps.runtime.bundle.exits import class_count, exits_identity
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import RuntimeFault

POLICY_FORMAT: Final = "hyps-exit-policy"
POLICY_VERSION: Final = 1
#: The largest policy file.
MOST_POLICY_BYTES: Final = 100_000


class PolicyError(RuntimeFault):
    """An exit policy is none, is damaged or too large, or is for other exits than the bundle's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelExits:
    """The exits of a model, the last included: their ``names``, the number of classes, and what a policy is bound to."""

    identity: str
    names: tuple[str, ...]
    classes: int


def model_exits(model_sha256: str, names: Sequence[str], classes: int) -> ModelExits:
    """Return the exits of a model by the sha256 of its file."""
    return ModelExits(identity=exits_identity(model_sha256, names), names=tuple(names), classes=classes)


def bundle_exits(manifest: Manifest) -> ModelExits:
    """Return the exits of a bundle. Raises `PolicyError` where it has none."""
    if not manifest.exits:
        raise PolicyError("the bundle has no exits", "compile the model with 'hypsc compile --exits auto'")
    names = [each.output for each in manifest.exits]
    return model_exits(manifest.model.sha256, names, class_count(manifest.tensors[names[-1]].shape))


def policy_header(exits: ModelExits) -> dict[str, object]:
    """Return the fields with which every policy file for these exits begins."""
    return {
        "format": POLICY_FORMAT,
        "version": POLICY_VERSION,
        "bundle": exits.identity,
        "classes": exits.classes,
        "exits": list(exits.names),
    }


def check_header(path: Path, found: dict[str, object], exits: ModelExits) -> None:
    """Compare the header of a policy file with the exits that it should be for. Raises `PolicyError`."""
    if found.get("format") != POLICY_FORMAT:
        raise PolicyError(f"{path} is no exit policy", "make one with 'hypsc exits'")
    if found.get("version") != POLICY_VERSION:
        raise PolicyError(f"{path} has version {str(found.get('version'))[:20]}, this hyps-run reads {POLICY_VERSION}")
    if found.get("exits") != list(exits.names):
        raise PolicyError(f"{path} is for other exits than {', '.join(exits.names)}", "make a policy for this bundle")
    if found.get("classes") != exits.classes:
        raise PolicyError(f"{path} is for {str(found.get('classes'))[:20]} classes, the exits have {exits.classes}")
    if found.get("bundle") != exits.identity:
        raise PolicyError(f"{path} is for the exits of another model", "make a policy for this bundle")
