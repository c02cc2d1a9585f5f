"""A connection to the hub: MQTT 5, no delays by the kernel, certificates checked, messages acknowledged when we say so.

paho-mqtt (``hyps[cluster]``), 5.5 MB resident, does the protocol. It connects again by itself whenever the hub comes back.
Quality of service 1, and what comes twice is known by job, share and attempt: level 2 took 0.4 to 0.5 ms instead of 0.2 to
0.3 for 1 KB, half the rate, and the same for chunks (loopback, Mosquitto 2.0.11); a killed hub forgets either.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hyps.runtime.cluster.broker.acknowledgements import UNACKNOWLEDGED
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.link import Linker, Receiver
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from hyps.runtime.errors import HubError

try:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    raise HubError("several devices need the paho-mqtt library: pip install 'hyps[cluster]'") from None

#: The hub waits one and a half times as long before it publishes the last will of a device that is silent.
KEEPALIVE_S = 4
CONNECT_S = 10
#: Messages at a time that are not acknowledged yet: what either side holds beside its queues is bounded by that.
INFLIGHT = 20
_MANAGER_SESSION_S = 24 * 3600
_RETRY_S = 1
_LINGER_S = 1
#: CONNACK: bad user name or password, not authorised, banned; DISCONNECT: session taken over.
_REFUSED = {"Bad user name or password", "Not authorized", "Banned", "Client identifier not valid"}

log = logging.getLogger(__name__)


class _Unreachable(HubError):
    """There is no hub, for now."""


class Connection:
    """One user's connection. Callbacks come on its own thread; they must be quick.

    ``connected`` is called after every connect and is the place to subscribe; ``received`` gets every message and must
    have it acknowledged, at once or later. The hub keeps what comes for this user for ``session_s`` seconds without a
    connection, and sends ``inflight`` messages before one is acknowledged.
    """

    def __init__(
        self,
        join: Join,
        name: str,
        *,
        received: Receiver,
        connected: Callable[[], None] = lambda: None,
        will: tuple[str, bytes] | None = None,
        session_s: int = 0,
        inflight: int = INFLIGHT,
    ) -> None:
        self._session_s, self._inflight = session_s, inflight
        self.address = join.address
        self._received = received
        self._connected = connected
        self._ready = threading.Event()
        self._subscribes = False
        self.refused: str | None = None
        self.largest_bytes: int | None = None  # the hub's limit on messages
        self._number = 0
        self._last_sent: MQTTMessageInfo | None = None
        client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5, manual_ack=True)
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(1, 4)
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
        client.on_socket_open = _no_delay
        self._client = client

    def open(self, wait_s: float = CONNECT_S, *, patient: bool = False) -> None:
        """Connect, and return when that is done and the hub knows the subscriptions. Raises `HubError`.

        ``patient``: a hub that is not there yet is waited for, without end.
        """
        while True:
            try:
                self._connect()
                break
            except _Unreachable:
                if not patient:
                    raise
                log.warning("waiting for the hub at %s", self.address)
                time.sleep(_RETRY_S)
        self._client.loop_start()
        ready = self._ready.wait(wait_s)
        if self.refused or not ready:
            self.close()
            raise HubError(f"the hub at {self.address} refuses: {self.refused or f'no answer within {wait_s:.0f} s'}")

    def _connect(self) -> None:
        properties: Any = _properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = self._inflight
        properties.MaximumPacketSize = FRAME_LIMIT_BYTES + ENVELOPE_BYTES
        properties.SessionExpiryInterval = self._session_s
        where = f"the hub at {self.address}"
        try:
            self._client.connect(
                self.address.host,
                self.address.port,
                keepalive=KEEPALIVE_S,
                clean_start=not self._session_s,
                properties=properties,
            )
        except ssl.SSLCertVerificationError as error:
            raise HubError(f"{where} is not the one of the join file: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise HubError(f"{where} does not speak TLS 1.2 or newer: {error.reason}") from None
        except OSError as error:
            raise _Unreachable(f"cannot reach {where}: {error.strerror or error}; is it running?") from None

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for messages on ``topics``; may be called in ``connected``."""
        if topics:
            self._subscribes = True
            self._client.subscribe([(each, _at_least_once()) for each in topics])

    @property
    def connected(self) -> bool:
        """There is a connection now."""
        return bool(self._client.is_connected())

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
        """Hand a message over; it is sent when there is a connection, again until acknowledged (QoS 1)."""
        properties: Any = None
        if expiry_s is not None:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        sent = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self._last_sent = sent

    def close(self) -> None:
        """Say good-bye, when what was published is acknowledged or a moment has passed: no last will is published."""
        until = time.monotonic() + _LINGER_S
        while self._client.is_connected() and self._unsent() and time.monotonic() < until:
            time.sleep(0.002)
        self._client.disconnect()
        self._client.loop_stop()

    def _unsent(self) -> bool:
        return self._last_sent is not None and not self._last_sent.is_published()

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refused = str(reason)
            log.warning("the hub refuses: %s", reason)
            if str(reason) in _REFUSED:
                self._ready.set()
            return
        self.refused = None
        self.largest_bytes = getattr(properties, "MaximumPacketSize", None)
        self._number += 1
        self._subscribes = False
        self._connected()
        if not self._subscribes:
            self._ready.set()

    def _on_disconnect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.warning("the hub is gone: %s", reason)

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        mid, number = message.mid, self._number

        def acknowledge() -> None:
            if number == self._number:  # else its number may be another message's by now
                client.ack(mid, 1)

        try:
            self._received(message.topic, bytes(message.payload), acknowledge)
        except Exception:  # else paho's thread ends, and with it every connection
            log.exception("a bug: a message on %s of %d bytes is dropped", message.topic, len(message.payload))
            acknowledge()


def manager_link(join: Join) -> Linker:
    """A manager's connection: the hub keeps what comes while it is not there."""
    return partial(Connection, join, session_s=_MANAGER_SESSION_S, inflight=2 * UNACKNOWLEDGED)


def _properties(kind: int) -> Any:
    return Properties(kind)  # type: ignore[no-untyped-call]


def _at_least_once() -> Any:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=1, noLocal=True)


def _context(join: Join) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if join.authority:
        try:
            context.load_verify_locations(cadata=join.authority)
        except ssl.SSLError:
            raise HubError("the join file's authority is no certificate; make the join file again") from None
    else:
        context.load_default_certs()
    return context


def _no_delay(client: Client, data: Any, opened: Any) -> None:
    """Without it a message that ends in a small packet waits 40 ms for the last one's acknowledgement."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
