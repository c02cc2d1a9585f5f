"""Read and write policy files in JSON: thresholds, and tables of actions. Nothing in a file is trusted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hyps.runtime.bundle.records.exits import MOST_EXITS, Share
from hyps.runtime.bundle.records.fields import Count, Name, Positive, Record, Sha256
from hyps.runtime.exits.policies import BinnedActions, ExitPolicy, NeverExit, TablePolicy, ThresholdPolicy
from hyps.runtime.exits.policy_header import MOST_POLICY_BYTES, ModelExits, PolicyError, check_header
from hyps.runtime.exits.state import ExitAction

#: A least confidence; above 1 an exit is never taken.
ExitThreshold = Annotated[float, Meta(ge=0, le=2)]
ByteRate = Annotated[float, Meta(ge=0)]
ActionName = Literal["stay", "exit", "offload"]
_ACTIONS = {"stay": ExitAction.STAY, "exit": ExitAction.EXIT, "offload": ExitAction.OFFLOAD}


class GuaranteeRecord(Record, frozen=True, kw_only=True):
    """The promise of thresholds: with probability ``confidence`` at most ``loss`` more answers are wrong.

    It is relative to the last exit, and rests on ``samples`` inputs. ``method`` names the bound.
    """

    loss: Share
    confidence: Share
    samples: Positive
    method: Annotated[str, Meta(max_length=100)]


class TableRecord(Record, frozen=True, kw_only=True):
    """The table of one exit; see `hyps.runtime.exits.policies.BinnedActions`."""

    edges: Annotated[tuple[Share, ...], Meta(max_length=1000)]
    actions: Annotated[tuple[tuple[ActionName, ...], ...], Meta(max_length=1001)]


class PolicyRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a policy file: a header, and either ``thresholds`` or ``tables``, by its ``kind``.

    There is one threshold, or one table, for each exit but the last. ``bandwidth_edges`` are of tables, in bytes a second.
    """

    format: Literal["hyps-exit-policy"]
    version: Literal[1]
    bundle: Sha256
    classes: Count
    exits: Annotated[tuple[Name, ...], Meta(min_length=2, max_length=MOST_EXITS)]
    kind: Literal["thresholds", "table"]
    thresholds: tuple[ExitThreshold, ...] | UnsetType = UNSET
    tables: tuple[TableRecord, ...] | UnsetType = UNSET
    bandwidth_edges: Annotated[tuple[ByteRate, ...], Meta(max_length=1000)] = ()
    guarantee: GuaranteeRecord | UnsetType = UNSET


def read_policy(text: str, exits: ModelExits) -> ExitPolicy:
    """Return the policy that ``text`` names: ``never``, ``threshold:P``, or the path of a .json or .onnx file.

    Raises `PolicyError` for a policy that is none, or is for other exits.
    """
    return policy_of(text, policy_content(text), exits)


def policy_content(text: str) -> bytes:
    """Return the content of the file that a policy is in; nothing for one without a file. Raises `PolicyError`."""
    if text == "never" or text.startswith("threshold:"):
        return b""
    path = Path(text)
    if path.suffix not in (".json", ".onnx"):
        raise PolicyError(
            f"--exit-policy {text[:80]!r} is no policy",
            "give never, threshold:P with P from 0 to 1, or a .json or .onnx file",
        )
    return _content(path)


def policy_of(text: str, content: bytes, exits: ModelExits) -> ExitPolicy:
    """Return the policy that ``text`` names, whose file has this content; no file is opened. Raises `PolicyError`."""
    if text == "never":
        return NeverExit()
    if text.startswith("threshold:"):
        return ThresholdPolicy((_threshold(text.partition(":")[2]),) * (len(exits.names) - 1))
    path = Path(text)
    if path.suffix == ".json":
        return parse_policy(path, content, exits)
    from hyps.runtime.exits.network_policy import open_network_policy  # it imports onnxruntime

    return open_network_policy(path, content, exits)


def parse_policy(path: Path, content: bytes, exits: ModelExits) -> ExitPolicy:
    """Return the policy in the content of a JSON file. Raises `PolicyError`."""
    try:
        header = msgspec.json.decode(content, type=dict[str, object])
        check_header(path, header, exits)
        record = msgspec.json.decode(content, type=PolicyRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path} is no exit policy: {error}", "make one with 'hypsc exits'") from None
    if record.kind == "thresholds" and record.thresholds and not record.tables:
        _check_count(path, record.thresholds, exits)
        return ThresholdPolicy(record.thresholds)
    if record.kind == "table" and record.tables and not record.thresholds:
        _check_count(path, record.tables, exits)
        return _table_policy(path, record.tables, record.bandwidth_edges)
    raise PolicyError(f"{path} has not the fields of a policy of kind {record.kind!r}", "make it again with 'hypsc exits'")


def _check_count(path: Path, found: Sequence[object], exits: ModelExits) -> None:
    if len(found) != len(exits.names) - 1:
        raise PolicyError(f"{path} decides at {len(found)} exits, the bundle has {len(exits.names) - 1} before the last")


def _table_policy(path: Path, tables: Sequence[TableRecord], bandwidth_edges: Sequence[float]) -> TablePolicy:
    for edges in (bandwidth_edges, *(table.edges for table in tables)):
        if any(after <= before for before, after in itertools.pairwise(edges)):
            raise PolicyError(f"{path}: the edges of its bins do not ascend", "make it again with 'hypsc exits'")
    for table in tables:
        widths = {len(row) for row in table.actions}
        if len(table.actions) != len(bandwidth_edges) + 1 or widths != {len(table.edges) + 1}:
            raise PolicyError(f"{path}: a table has not one action for each bin", "make it again with 'hypsc exits'")
    return TablePolicy(
        tuple(bandwidth_edges),
        tuple(
            BinnedActions(table.edges, tuple(tuple(_ACTIONS[name] for name in row) for row in table.actions))
            for table in tables
        ),
    )


def _threshold(text: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise PolicyError(f"--exit-policy threshold:{text[:40]} is no probability; give one such as threshold:0.9")
    return threshold


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_POLICY_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MOST_POLICY_BYTES:
        raise PolicyError(f"{path} is larger than {MOST_POLICY_BYTES} bytes: it is no exit policy")
    return content
