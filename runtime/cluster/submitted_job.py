"""Hold one job of a client: its inputs, how far it is, and what has arrived of its result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyps.runtime.bundle.exits import rest_outputs
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol.client_messages import Exited
from hyps.runtime.cluster.protocol.decoded_note import DecodedNote
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.tensor import TensorValue


@dataclass(slots=True, kw_only=True)
class SubmittedJob:
    """One input under way: the times when it began and was last heard of, and the outputs that have arrived.

    With ``after_exit``, it is the rest of an inference behind that exit. ``advanced`` is when the manager last said anything
    of it, or took a part of its inputs, of which ``sent_bytes`` were sent, in ``sent_s`` seconds once the hub has them all.
    ``exited`` says where it ended early.
    """

    number: int
    name: str
    inputs: Mapping[str, TensorValue]
    after_exit: int | None = None
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    advanced: float = field(default_factory=time.monotonic)
    sent_bytes: int = 0
    sent_s: float = 0.0
    exited: Exited | None = None
    outputs: Outputs = field(default_factory=dict)
    error: InputError | None = None
    decoded: DecodedNote | None = None

    def hear(self) -> None:
        """Note that the manager said something of it."""
        self.heard = self.advanced = time.monotonic()

    def is_finished(self, manifest: Manifest) -> bool:
        """Return whether it failed, or all of its result is there."""
        until = self.exited.exit if self.exited else None
        return self.error is not None or self.outputs.keys() >= {*rest_outputs(manifest, self.after_exit, until)}
