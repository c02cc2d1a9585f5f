"""Connect to the hub by MQTT 5: no delays by the kernel, checked certificates, acknowledgements under our control.

paho-mqtt (``hyps[cluster]``), 5.5 MB resident, speaks the protocol, and reconnects whenever the hub comes back. Messages
have quality of service 1; one that comes twice is recognised by its job, sub-bundle and attempt. Level 2 took 0.4 to 0.5 ms
instead of 0.2 to 0.3 for 1 KB, which is half the rate, and chunks slow down likewise (loopback, Mosquitto 2.0.11). A killed
hub forgets the messages of either level.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hyps.runtime.cluster.broker.acknowledgements import UNACKNOWLEDGED
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.link import LinkFactory, Receiver
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.errors import HubError
from hyps.runtime.suggestions import install

try:
    from paho.mqtt.client import Client, MQTTMessage, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    raise HubError(f"several devices need the paho-mqtt library; {install('cluster')}") from None

#: The hub publishes the last will of a silent device after one and a half times this.
KEEPALIVE_S = 4
CONNECT_S = 10
#: The least and the most seconds before a lost connection is tried again.
RECONNECT_S = (1, 4)
#: The least and the most seconds between two attempts to reach a hub that was not there yet.
WAIT_S = (1, 30)
#: The number of unacknowledged messages: it bounds what either side holds in addition to its queues.
INFLIGHT = 20
_MANAGER_SESSION_S = 24 * 3600
_LINGER_S = 1
_NEW_JOIN_FILE = "the join file is out of date, or the hub has not read its files again: kill -HUP $(pidof mosquitto)"
#: paho's texts of the CONNACK reasons after which another attempt is useless, and what to do.
_REFUSED = {
    "Bad user name or password": _NEW_JOIN_FILE,
    "Not authorized": _NEW_JOIN_FILE,
    "Banned": "",
    "Client identifier not valid": "give another --name",
}

_log = logging.getLogger(__name__)


class _Unreachable(HubError):
    """The hub cannot be reached now, but may be later."""


class Connection:
    """One user's connection to the hub. Callbacks run on its own thread and must be quick.

    ``connected`` is called after every connect, and is the place to subscribe; ``lost`` after a loss, with its reason.
    ``received`` gets every message of quality of service 1 or 2 and must acknowledge it, at once or later. Without a
    connection, the hub keeps this user's messages for ``session_s`` seconds. It sends up to ``inflight`` messages before the
    first is acknowledged.
    """

    def __init__(
        self,
        join: Join,
        name: str,
        *,
        received: Receiver,
        connected: Callable[[], None] = lambda: None,
        lost: Callable[[str], None] = lambda reason: _log.warning("the hub is gone: %s", reason),
        will: tuple[str, bytes] | None = None,
        session_s: int = 0,
        inflight: int = INFLIGHT,
    ) -> None:
        self._session_s, self._inflight = session_s, inflight
        self.address = join.address
        self._received = received
        self._connected, self._lost = connected, lost
        self._repeats = Tally()
        self._ready = threading.Event()
        self._subscribes = False
        self.refused: str | None = None
        self.largest_bytes: int | None = None  # the hub's limit on messages
        self._number, self._joined = 0, False
        self._sent: deque[int] = deque()  # the bytes of each message that is not acknowledged, the oldest first
        self._sent_bytes = 0
        self._acknowledged = threading.Condition()
        client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5, manual_ack=True)
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(*RECONNECT_S)
        client.connect_timeout = CONNECT_S
        if join.password is not None:
            client.username_pw_set(join.name, join.password)
        if self.address.tls:
            client.tls_set_context(_context(join))
        if will:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = _no_delay
        self._client = client

    def open(self, wait_s: float = CONNECT_S, *, patient: bool = False) -> None:
        """Connect, and return when the hub knows the subscriptions. Raises `HubError`.

        With ``patient``, wait without end for a hub that is not there yet.
        """
        pause_s, longest_s = WAIT_S
        while True:
            try:
                self._connect()
                break
            except _Unreachable as unreachable:
                if not patient:
                    raise
                _log.warning("%s; trying again in %g s", unreachable.fault.problem, pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)
        self._client.loop_start()
        while not self._ready.wait(wait_s) and patient:
            _log.warning("the hub at %s does not answer yet%s", self.address, f": {self.refused}" if self.refused else "")
        if self.refused or not self._ready.is_set():
            self.close()
            reason = f"refuses: {self.refused}" if self.refused else f"does not answer within {wait_s:.0f} s"
            raise HubError(f"the hub at {self.address} {reason}", _REFUSED.get(self.refused or "", ""))

    def _connect(self) -> None:
        properties: Any = _properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = self._inflight
        properties.MaximumPacketSize = FRAME_LIMIT_BYTES + ENVELOPE_BYTES
        properties.SessionExpiryInterval = self._session_s
        hub = f"the hub at {self.address}"
        try:
            self._client.connect(
                self.address.host,
                self.address.port,
                keepalive=KEEPALIVE_S,
                clean_start=not self._session_s,
                properties=properties,
            )
        except ssl.SSLCertVerificationError as error:
            raise HubError(f"{hub} is not the one of the join file: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise HubError(f"{hub} does not speak TLS 1.2 or newer: {error.reason}") from None
        except OSError as error:
            raise _Unreachable(f"cannot reach {hub}: {error.strerror or error}", "is it running?") from None

    def subscribe(self, topics: Sequence[str], *, own: bool = False) -> None:
        """Ask for messages on ``topics``, with ``own`` also for this connection's; usually called in ``connected``."""
        if topics:
            self._subscribes = True
            self._client.subscribe([(each, _at_least_once(own=own)) for each in topics])

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return bool(self._client.is_connected())

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
        """Hand a message over; it is sent when there is a connection, and again until it is acknowledged (QoS 1)."""
        properties: Any = None
        if expiry_s is not None:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        with self._acknowledged:
            self._sent.append(len(payload))
            self._sent_bytes += len(payload)
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)

    def wait_until_sent(self, all_but_bytes: int, timeout_s: float | None = None) -> bool:
        """Wait until at most this many bytes of messages are unacknowledged, also while there is no connection.

        Return whether it has, within ``timeout_s`` if that is given. Not for a thread that this connection's own thread may
        have to wait for.
        """
        with self._acknowledged:
            return self._acknowledged.wait_for(lambda: self._sent_bytes <= all_but_bytes, timeout_s)

    def close(self) -> None:
        """Disconnect when all published messages are acknowledged, or after a second; the hub publishes no last will."""
        until = time.monotonic() + _LINGER_S
        while self._client.is_connected() and self._sent and time.monotonic() < until:
            time.sleep(0.002)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_publish(self, client: Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        """Note an acknowledgement; they come in order, or nearly so."""
        with self._acknowledged:
            self._sent_bytes -= self._sent.popleft()
            self._acknowledged.notify_all()

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refused = str(reason)
            if self._number and (times := self._repeats.count(str(reason))) is not None:  # else `open` says it
                _log.warning("the hub refuses: %s%s", reason, times)
            if str(reason) in _REFUSED:
                self._ready.set()
            return
        self.refused, self._joined = None, True
        self.largest_bytes = getattr(properties, "MaximumPacketSize", None)
        self._number += 1
        self._subscribes = False
        self._connected()
        if not self._subscribes:
            self._ready.set()

    def _on_disconnect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure and self._joined:  # not after an attempt that the hub has refused
            self._joined = False
            self._lost(str(reason))

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        if message.qos == 0:
            # It has no number, so that an acknowledgement is against the protocol, after which the hub disconnects.
            if (times := self._repeats.count(message.topic)) is not None:
                _log.warning("refused a message of quality of service 0 on %s%s", ascii(message.topic)[1:-1], times)
            return
        mid, number = message.mid, self._number

        def acknowledge() -> None:
            if number == self._number:  # after a reconnect, the number may be another message's
                client.ack(mid, 1)

        try:
            self._received(message.topic, bytes(message.payload), acknowledge)
        except Exception:  # otherwise paho's thread would end, and with it the connection
            _log.exception("a bug: a message on %s of %d bytes is dropped", message.topic, len(message.payload))
            acknowledge()


def manager_link(join: Join) -> LinkFactory:
    """Return the factory of a manager's connection: the hub keeps its messages while the manager is away."""
    return partial(Connection, join, session_s=_MANAGER_SESSION_S, inflight=2 * UNACKNOWLEDGED)


def _properties(kind: int) -> Any:
    return Properties(kind)


def _at_least_once(*, own: bool) -> Any:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=1, noLocal=not own)


def _context(join: Join) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if join.authority:
        try:
            context.load_verify_locations(cadata=join.authority)
        except ssl.SSLError:
            raise HubError("the join file's authority is not a certificate; make the join file again") from None
    else:
        context.load_default_certs()
    return context


def _no_delay(client: Client, data: Any, opened: Any) -> None:
    """Set TCP_NODELAY: without it, a message that ends in a small packet waits 40 ms for an acknowledgement."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
