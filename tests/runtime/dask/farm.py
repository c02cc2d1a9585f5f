"""Start a Dask cluster of separate processes on this machine: a scheduler and workers that can be killed."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.runtime.cluster.mosquitto import free_port
from tests.waiting import wait_for

#: The memory of a worker.
MEMORY_BYTES = 300_000_000


class Farm:
    """A Dask cluster that ends with the ``stack``; its workers keep files in ``folder``. ``tls`` asks for certificates."""

    def __init__(self, stack: ExitStack, folder: Path, bin_folder: Path, *, tls: bool = False) -> None:
        self._stack, self._folder, self._bin = stack, folder, bin_folder
        self.port = free_port()
        self.environment = {**os.environ, "HOME": str(folder / "home")}
        self._scheme = "tls" if tls else "tcp"
        if tls:
            self.environment |= certificates(folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"{'dask+tls' if self._scheme == 'tls' else 'dask'}://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        options = ["--host", f"{self._scheme}://127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show"]
        self._start("scheduler", ["scheduler", *options])
        wait_for("the scheduler", lambda: "Scheduler at" in self.log("scheduler"))

    def start_worker(self, name: str, memory_bytes: int | None = MEMORY_BYTES) -> None:
        place = self._folder / f"{name}.local"
        options: list[str | Path] = ["--name", name, "--nthreads", "1", "--no-dashboard", "--local-directory", place]
        resources = ["--resources", f"memory={memory_bytes}"] if memory_bytes else []
        self._start(
            name,
            ["worker", f"{self._scheme}://127.0.0.1:{self.port}", "--no-nanny", "--memory-limit", "0", *options, *resources],
        )
        wait_for(f"{name}", lambda: "Registered to" in self.log(name))

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        path = self._folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    @property
    def cache(self) -> Path:
        """The folder in which the workers keep files."""
        return self._folder / "home/.cache/hyps/dask"

    def resident_bytes(self, name: str) -> int:
        """Return a worker's peak resident memory."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def _start(self, name: str, command: list[str | Path]) -> None:
        output = self._stack.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen([self._bin / "dask", *command], stdout=output, stderr=output, env=self.environment)
        self._stack.callback(_end, process)
        self.processes[name] = process


def certificates(folder: Path) -> dict[str, str]:
    """Return environment variables that configure Dask with one certificate for all, made in ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "farm")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (("cert", signed.public_bytes(pem)), ("key", secret)):
        (folder / f"{file}.pem").write_bytes(content)
    found = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "cert.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        for file in ("cert", "key"):
            found[f"DASK_DISTRIBUTED__COMM__TLS__{role}__{file.upper()}"] = str(folder / f"{file}.pem")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def results(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """Return the results that ``hyps-run --json`` printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]
