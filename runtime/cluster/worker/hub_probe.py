"""Measure at a hub what a cluster's planner needs of a board: its link, and what handling a message costs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.link_probe import LARGE_BYTES, LinkProbe
from hyps.runtime.cluster.protocol.frames import MAGIC
from hyps.runtime.cluster.worker.message_probe import MessageProbe
from hyps.runtime.device.link_rates import HubMeasurements
from hyps.runtime.errors import HubError

_log = logging.getLogger(__name__)


def probe_hub(join: Join, name: str, *, sizes: Sequence[int] = LARGE_BYTES) -> HubMeasurements:
    """Connect as the worker ``name``, and measure its link to the hub, with messages of these ``sizes``, and their cost.

    It takes up to 40 s. Raises `HubError` if the hub cannot be reached, or does not send the worker its own messages.
    """
    connection = Connection(join, name, received=lambda _, payload, acknowledge: probe.returned(payload, acknowledge))
    probe = HubProbe(connection, name)
    connection.open()
    with closing(connection):
        return probe.measure(sizes)


class HubProbe:
    """The measurements by the ``connection`` of a worker, which passes messages of the topic `topic` to `returned`."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._link = LinkProbe(connection, name)
        self._messages = MessageProbe(connection, self._link.topic)
        #: The topic of the messages.
        self.topic = self._link.topic

    def measure(self, sizes: Sequence[int]) -> HubMeasurements:
        """Return what is measured. Raises `HubError` where messages are not acknowledged or do not come back."""
        link = self._link.measure(sizes)
        return HubMeasurements(link=link, message_s=self._messages.measure(link))

    def start(self, sizes: Sequence[int], measured: Callable[[HubMeasurements], None]) -> None:
        """Measure on a thread of its own, and call ``measured`` there, unless that fails."""
        threading.Thread(target=self._measure, args=(sizes, measured), name="hub probe", daemon=True).start()

    def _measure(self, sizes: Sequence[int], measured: Callable[[HubMeasurements], None]) -> None:
        try:
            found = self.measure(sizes)
        except HubError as error:
            _log.info("the link is not measured: %s", error)
        else:
            measured(found)

    def returned(self, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Take a message that is back (on the connection's thread)."""
        if payload.startswith(MAGIC):
            self._messages.returned(payload, acknowledge)
        else:
            self._link.returned(payload, acknowledge)
