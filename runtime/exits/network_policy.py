"""Run a policy that was learnt: a small network from the state at an exit to the value of each action.

Seifeddine (section 3.4) learns it by deep Q-learning. onnxruntime computes the values; the action is the one of the highest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnxruntime as ort

from hyps.runtime.exits.network_check import UnsafeNetwork, check_network
from hyps.runtime.exits.policy_header import ModelExits, PolicyError, check_header
from hyps.runtime.exits.state import ExitAction, ExitState, ProbabilityOrder, state_vector, state_width

_FATAL = 4


class NetworkPolicy:
    """A policy whose checked network onnxruntime runs, on one thread. It can be pickled."""

    def __init__(self, content: bytes, exits: int, order: ProbabilityOrder) -> None:
        self._content, self._exits, self._order = content, exits, order
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = _FATAL
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process opens the same network."""
        return NetworkPolicy, (self._content, self._exits, self._order)

    def decide(self, state: ExitState) -> ExitAction:
        """Return the action with the highest value; the first of several in the order STAY, EXIT, OFFLOAD."""
        (values,) = self._session.run(["values"], {"state": state_vector(state, self._exits, self._order)})
        return ExitAction(int(np.argmax(values[0])))


def open_network_policy(path: Path, content: bytes, exits: ModelExits) -> NetworkPolicy:
    """Return the policy in the content of an ONNX file. Raises `PolicyError`.

    Its metadata has the fields of `hyps.runtime.exits.policy_header.policy_header`, texts as they are and others as JSON.
    It also has ``probabilities``: ``sorted`` or ``raw``.
    """
    try:
        network = check_network(content, state_width(exits.classes, len(exits.names)), len(ExitAction))
    except UnsafeNetwork as error:
        raise PolicyError(f"{path} is no network that a policy may be: {error}", "export it with 'hypsc exits'") from None
    check_header(path, {name: _value(name, text) for name, text in network.metadata.items()}, exits)
    order = network.metadata.get("probabilities")
    if order not in get_args(ProbabilityOrder):
        raise PolicyError(f"{path} does not say whether its probabilities are sorted or raw", "export it again")
    try:
        return NetworkPolicy(content, len(exits.names), "sorted" if order == "sorted" else "raw")
    except Exception as error:  # onnxruntime's exception classes have no common public base
        reason = next(iter(str(error).splitlines()), "")
        raise PolicyError(f"onnxruntime cannot open {path}: {reason}", "export it again") from None


def _value(name: str, text: str) -> object:
    """Return a header's value: numbers and lists are JSON in the metadata, which holds texts alone."""
    if name not in ("version", "classes", "exits"):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
