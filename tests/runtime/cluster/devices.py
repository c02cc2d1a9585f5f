"""A cluster of separate processes on this machine: a hub, a manager, workers; each can be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from tests.runtime.cluster.mosquitto import free_port, running, wait_for

LIAR = """
from hyps.runtime.execution import executor
from hyps.runtime.cluster.cli.worker import main

honest = executor.Executor.run
executor.Executor.run = lambda *a, **k: {name: values + 1 for name, values in honest(*a, **k).items()}
main()
"""

QUITTER = """
import os, time
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.protocol.frames import MAGIC
from hyps.runtime.cluster.cli.worker import main

honest = Connection.publish


def publish(connection, topic, payload, **options):
    honest(connection, topic, payload, **options)
    if payload.startswith(MAGIC):
        time.sleep(1)
        os._exit(1)


Connection.publish = publish
main()
"""


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

    def start(self, workers: int, *options: str) -> None:
        """A manager and workers w0, w1 and so on, until all is loaded."""
        self.start_manager("--workers", str(workers), *options)
        for number in range(workers):
            self.start_worker(f"w{number}")
        self.wait_for_sub_bundles(workers=workers)

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

    def start_group(self, name: str, below: Devices, *options: str) -> None:
        """A worker that is the manager of the workers at another hub."""
        hub = [] if "--sub-join" in options else ["--sub-hub", below.url]
        cache = self._folder / f"{name}.cache"
        self._start(name, "hyps-worker", ["--hub", self.url, "--name", name, "--cache", cache, "--verbose", *hub, *options])

    def start_program(self, name: str, text: str) -> None:
        """A worker that does not behave: `LIAR` adds one to what it computes, `QUITTER` dies after a chunk of it."""
        program = self._folder / f"{name}.py"
        program.write_text(text)
        options: list[str | Path] = ["--hub", self.url, "--name", name, "--memory", "120MB", "--threads", "1", "--verbose"]
        cache: list[str | Path] = ["--cache", self._folder / name]
        self._spawn(name, [sys.executable, program, *options, *cache], os.environ | {"HYPS_LEAN": "1"})

    def kill(self, name: str) -> None:
        """With -9."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def freeze(self, name: str) -> None:
        """As a board whose link broke: it says nothing and takes nothing."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def log(self, name: str) -> str:
        path = self._folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    @property
    def hyps_run(self) -> Path:
        return self._bin / "hyps-run"

    def engine(self) -> ClusterEngine:
        return ClusterEngine(self.bundle, self.url, None)

    def wait_for_sub_bundles(self, workers: int = 0, seconds: float = 20) -> None:
        """Until every sub-bundle that the manager placed last is loaded."""

        def loaded() -> bool:
            lives = dict(re.findall(r"sub-bundle (\d+ on \w+): \w+ -> (\w+)$", self.log("manager"), re.MULTILINE))
            ready = {life.split()[0] for life, state in lives.items() if state in ("loaded", "inferring", "computed")}
            homes = {life.split()[-1] for life, state in lives.items() if state != "lost"}
            waits = {"placed", "loading"} & {*lives.values()}
            return len(homes) >= workers and not waits and bool(ready) and ready == {life.split()[0] for life in lives}

        wait_for(f"loaded sub-bundles: {self.log('manager')}", loaded, seconds)

    def resident_bytes(self, name: str, figure: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return int(re.findall(rf"{figure}:\s+(\d+)", status)[0]) * 1024

    def _start(self, name: str, command: str, options: list[str | Path]) -> None:
        self._spawn(name, [self._bin / command, *options])

    def _spawn(self, name: str, command: list[str | Path], environment: dict[str, str] | None = None) -> None:
        output = self._stack.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        self._stack.callback(_end, process)
        self.processes[name] = process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)  # one that was frozen
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
