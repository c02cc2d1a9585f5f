"""Send clients the results of their jobs, or the reasons why there are none."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.client_messages import Decoded, Exited, Refused
from hyps.runtime.cluster.protocol.decoded_note import decode_note
from hyps.runtime.cluster.protocol.frames import Key, encode_tensor
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.exits.report import EndedBy

#: The most accepted jobs; further ones wait with their clients, not on the manager's disk.
MAX_OPEN_JOBS = 1000
_EXPIRY_S = 600
#: A result is not sent again in the time that it takes at this rate, however often its client asks.
_RESULT_BYTES_PER_S = 5_000_000

#: Publishes a payload at a topic; the hub keeps it for the given seconds.
Publish = Callable[[str, bytes, int], None]


class Answers:
    """The results of one manager's jobs, as its journal has them."""

    def __init__(self, manifest: Manifest, journal: Journal, publish: Publish, *, compress: bool) -> None:
        self._manifest, self._journal, self._publish, self._compress = manifest, journal, publish, compress
        self._sent_until: OrderedDict[str, float] = OrderedDict()
        self._made_at: OrderedDict[str, str] = OrderedDict()

    def reply(self, client: str, message: Message) -> None:
        """Send a client a message."""
        self._publish(topic(Role.CLIENT, client, "result"), messages.encode_message(message), _EXPIRY_S)

    def made_at(self, job: str, at: str) -> None:
        """Note the tiers above that made a job's result, if any did."""
        if at:
            self._made_at[job] = at
            if len(self._made_at) > MAX_OPEN_JOBS:
                self._made_at.popitem(last=False)

    def send(self, job: str) -> None:
        """Send a job's result to its client, or the reason why there is none."""
        record = self._journal.job(job)
        if record is None or record.state == "delivered":
            return
        if record.state == "failed":
            self.reply(record.client, Refused(job=job, reason=record.reason))
            return
        now = time.monotonic()
        if now < self._sent_until.get(job, now):
            return  # it is on its way
        names = [output.name for output in self._manifest.outputs if output.name in record.tensors]
        result_bytes = sum(self._manifest.tensors[name].nbytes for name in names)
        self._sent_until[job] = now + result_bytes / _RESULT_BYTES_PER_S
        if len(self._sent_until) > MAX_OPEN_JOBS:
            self._sent_until.popitem(last=False)
        if exited := self._exited(job, names):
            self.reply(record.client, exited)
        if note := decode_note(record.reason):
            self.reply(record.client, Decoded(job=job, note=note))
        for name in names:
            try:
                data = memoryview(self._journal.read(record.tensors[name]))
            except DamagedTensor as fault:
                self._journal.finish(job, "failed", damage_reason(fault))
                self.reply(record.client, Refused(job=job, reason=damage_reason(fault)))
                return
            key, tensor = Key(job=job, sub_bundle=-1, attempt=0), self._manifest.tensors[name]
            for frame in encode_tensor(key, name, tensor, data, compress=self._compress):
                self._publish(topic(Role.CLIENT, record.client, "result"), frame, _EXPIRY_S)

    def _exited(self, job: str, names: Collection[str]) -> Exited | None:
        """Return which exit answered a job, by the outputs that were made, if it is not simply the last one here."""
        reached = [number for number, each in enumerate(self._manifest.exits, start=1) if each.output in names]
        at = self._made_at.get(job, "")
        if not reached or (reached[-1] == len(self._manifest.exits) and not at):
            return None
        ended_by: EndedBy = "network" if reached[-1] == len(self._manifest.exits) else "policy"
        return Exited(job=job, exit=reached[-1], ended_by=ended_by, at=at)


def damage_reason(fault: DamagedTensor) -> str:
    """Return the reason for which a job fails that has lost a tensor."""
    return messages.shorten(f"{fault}; submit the input again")
