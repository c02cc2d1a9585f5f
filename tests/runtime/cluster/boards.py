"""Run a cluster whose hub, manager, workers and client are each on a board of a network of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from tests.cluster_network import Network
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import running


class Boards(Devices):
    """The processes of one cluster, each on the board of its name; engines are on the board ``client``."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        bundle: Path,
        bin_folder: Path,
        mosquitto: str,
        network: Network,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(stack, folder, bundle, bin_folder, mosquitto, settings)
        self.network = network
        self.url = f"mqtt://{network.address('hub')}:{self.port}"

    def start_hub(self) -> None:
        configuration = self._folder / "open.conf"
        configuration.write_text(
            f"listener {self.port}\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
            f"max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}\n"
        )
        with self.network.inside("hub"):
            self.processes["hub"] = self._stack.enter_context(running(self._mosquitto, configuration, self.port))

    def engine(self, *, exact: bool = False) -> ClusterEngine:
        with self.network.inside("client"):
            return super().engine(exact=exact)

    def _spawn(self, name: str, command: list[str | Path], environment: dict[str, str]) -> None:
        with self.network.inside(name):
            super()._spawn(name, command, environment)
