"""Send a worker's pulses: signs of life with its memory, its queue and its board's energy."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.protocol.messages import BoardEnergy, Pulse, encode_message
from hyps.runtime.cluster.worker.message_meter import MessageMeter
from hyps.runtime.cluster.worker.runner import Backend
from hyps.runtime.device.process_memory import memory
from hyps.runtime.energy.board import BoardMeter, machine_number
from hyps.runtime.energy.estimate import recorded_power

#: With this, a manager's page shows within two seconds that a board was unplugged; the hub notices only after six.
_PULSE_S = 0.5


class Pulses:
    """The pulses of one worker, sent twice a second on a thread of their own, as computing takes long.

    Without a connection no pulse is sent: it would only arrive late. ``queue`` returns how many events wait.
    """

    def __init__(
        self,
        connection: Connection,
        output_topic: str,
        session: str,
        backend: Backend,
        energy: BoardMeter | None,
        queue: Callable[[], int],
        meter: MessageMeter,
    ) -> None:
        self._connection, self._output_topic, self._session = connection, output_topic, session
        self._backend, self._energy, self._queue, self._meter = backend, energy, queue, meter
        self._machine = machine_number() if energy else ""
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._send, name="pulse", daemon=True).start()

    def end(self) -> None:
        """Have the thread end."""
        self._ended.set()

    def estimate_energy_by(self, manifest: Manifest) -> None:
        """Estimate this board's energy by the power that a sub-bundle's manifest names, if this board computes it."""
        capabilities = self._backend.capabilities()
        computes_here = capabilities is not None and not capabilities.group
        if self._energy and computes_here and (power := manifest.target.power):
            self._energy.estimate_by(recorded_power(power, manifest.target.name))

    def _send(self) -> None:
        while not self._ended.wait(_PULSE_S):
            if self._connection.connected:
                pulse = Pulse(
                    session=self._session,
                    resident_bytes=memory().resident_bytes,
                    queue=self._queue(),
                    message_s=self._meter.message_s,
                    energy=self._board_energy(),
                    below={**self._backend.energies()},
                )
                self._connection.publish(self._output_topic, encode_message(pulse), expiry_s=1)

    def _board_energy(self) -> BoardEnergy | None:
        state = self._energy.state() if self._energy else None
        if state is None:
            return None
        return BoardEnergy(
            seconds=state.seconds,
            joules=state.joules,
            idle_watts=state.idle_watts,
            estimated=state.estimated,
            source=state.source[:200],
            machine=self._machine,
        )
