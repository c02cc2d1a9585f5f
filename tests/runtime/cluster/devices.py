"""A cluster of separate processes on this machine: a hub, a manager, workers; each can be killed."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from tests.runtime.cluster.broker import free_port, running, wait_for


class Devices:
    """Starts installed commands; all are ended with the ``stack``."""

    def __init__(self, stack: ExitStack, folder: Path, bundle: Path, bin_folder: Path, mosquitto: str) -> None:
        self._stack, self._folder, self.bundle, self._bin, self._mosquitto = stack, folder, bundle, bin_folder, mosquitto
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_hub(self) -> None:
        configuration = self._folder / "open.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
            f"max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}\n"
        )
        self.processes["hub"] = self._stack.enter_context(running(self._mosquitto, configuration, self.port))

    def start_manager(self, *options: str) -> None:
        hub: list[str | Path] = [] if "--join" in options else ["--hub", self.url]
        command: list[str | Path] = [self.bundle, *hub, "--journal", self._folder / "journal", "--verbose", *options]
        self._start("manager", "hyps-manager", command)

    def start_worker(self, name: str, *options: str, memory: str = "120MB") -> None:
        hub: list[str | Path] = [] if "--join" in options else ["--hub", self.url, "--name", name]
        cache = self._folder / f"{name}.cache"
        self._start(
            name, "hyps-worker", [*hub, "--memory", memory, "--threads", "1", "--cache", cache, "--verbose", *options]
        )

    def kill(self, name: str) -> None:
        """With -9."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        path = self._folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def engine(self) -> ClusterEngine:
        return ClusterEngine(self.bundle, self.url, None)

    def wait_for_shares(self, workers: int = 0, seconds: float = 20) -> None:
        """Until every share that the manager placed last is loaded."""

        def loaded() -> bool:
            state = dict(re.findall(r"(share \d+): \w+ -> (\w+)$", self.log("manager"), re.MULTILINE))
            placed = re.findall(r"share \d+ on (\w+):", self.log("manager"))
            return len(set(placed)) >= workers and bool(state) and not {"placed", "loading", "lost"} & {*state.values()}

        wait_for(f"loaded shares: {self.log('manager')}", loaded, seconds)

    def resident_bytes(self, name: str, figure: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return int(re.findall(rf"{figure}:\s+(\d+)", status)[0]) * 1024

    def _start(self, name: str, command: str, options: list[str | Path]) -> None:
        output = self._stack.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen([self._bin / command, *options], stdout=output, stderr=output)
        self._stack.callback(_end, process)
        self.processes[name] = process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
