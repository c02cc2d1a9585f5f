"""Run the real broker in a process of its own, on loopback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(mosquitto: str, configuration: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a broker until the end of the context, or until it is killed."""
    log = configuration.with_name("mosquitto.log")
    with log.open("ab") as output, subprocess.Popen([mosquitto, "-c", configuration], stderr=output) as process:
        try:
            wait_for(f"{configuration} listening: {log.read_text()}", lambda: listens(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()
            process.wait()
