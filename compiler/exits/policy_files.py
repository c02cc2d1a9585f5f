"""Write policies as the small files that ``hyps-run --exit-policy`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType
from onnx import helper

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.recorded import RecordedExits
from hyps.runtime.exits.policies import TablePolicy
from hyps.runtime.exits.policy_file import ActionName, GuaranteeRecord, PolicyRecord, TableRecord
from hyps.runtime.exits.policy_header import MOST_POLICY_BYTES, ModelExits, model_exits, policy_header
from hyps.runtime.exits.state import ExitAction

if TYPE_CHECKING:
    from hyps.compiler.exits.dqn import LearnedValues


_NAMES: dict[ExitAction, ActionName] = {
    ExitAction.STAY: "stay",
    ExitAction.EXIT: "exit",
    ExitAction.OFFLOAD: "offload",
}


def recorded_exits(recorded: RecordedExits) -> ModelExits:
    """Return the exits that a policy fitted to ``recorded`` is for."""
    return model_exits(recorded.model, recorded.names, recorded.classes)


def threshold_file(
    exits: ModelExits, thresholds: tuple[float, ...], guarantee: GuaranteeRecord | UnsetType = UNSET
) -> bytes:
    """Return the content of a JSON file with one threshold for each exit but the last."""
    fields = policy_header(exits) | {"kind": "thresholds", "thresholds": thresholds}
    return _json(fields if guarantee is UNSET else fields | {"guarantee": guarantee})


def table_file(exits: ModelExits, policy: TablePolicy) -> bytes:
    """Return the content of a JSON file with the actions of every bin."""
    tables = tuple(
        TableRecord(
            edges=tuple(table.edges),
            actions=tuple(tuple(_NAMES[action] for action in row) for row in table.actions),
        )
        for table in policy.exits
    )
    header = policy_header(exits) | {"kind": "table", "bandwidth_edges": tuple(policy.bandwidth_edges)}
    return _json(header | {"tables": tables})


def network_file(exits: ModelExits, values: LearnedValues) -> bytes:
    """Return the content of an ONNX file with a learned policy; the header is in its metadata."""
    model = values.to_onnx()
    header = policy_header(exits) | {"probabilities": values.order}
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in header.items()
    }
    helper.set_model_props(model, texts)
    return _checked(model.SerializeToString())


def _json(fields: dict[str, object]) -> bytes:
    record = msgspec.convert(msgspec.to_builtins(fields), PolicyRecord)
    return _checked(msgspec.json.format(msgspec.json.encode(record), indent=1))


def _checked(content: bytes) -> bytes:
    if len(content) > MOST_POLICY_BYTES:
        raise OptionError(
            f"the policy takes {len(content):,} bytes, and a policy file may have {MOST_POLICY_BYTES:,}; fit another kind"
        )
    return content
