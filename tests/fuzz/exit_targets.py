"""Give a device damaged exit policies, as JSON and as networks, and let what is accepted decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import ModelExits
from hyps.runtime.exits.state import ExitAction, ExitState
from tests.fuzz.mutation import damaged_json
from tests.fuzz.target import Read, Target
from tests.runtime.exits import test_network_policy, test_policy_file


def _policy_seeds(scratch: Path) -> Sequence[bytes]:
    return [json.dumps(each).encode() for each in (test_policy_file.THRESHOLDS, test_policy_file.TABLES)]


def _network_seeds(scratch: Path) -> Sequence[bytes]:
    return [test_network_policy.CONTENT]


def _reader(path: Path, exits: ModelExits) -> Read:
    state = ExitState(probabilities=np.full(exits.classes, 1 / exits.classes, np.float32), exit=0, seconds=0.5)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert read_policy(str(path), exits).decide(state) in ExitAction

    return read


TARGETS: Mapping[str, Target] = {
    "exit policy": Target(
        seeds=_policy_seeds,
        reader=lambda scratch: _reader(scratch / "policy.json", test_policy_file.EXITS),
        mendable=(RuntimeFault,),
        damaged=damaged_json,
    ),
    "exit network": Target(
        seeds=_network_seeds,
        reader=lambda scratch: _reader(scratch / "policy.onnx", test_network_policy.EXITS),
        mendable=(RuntimeFault,),
    ),
}
