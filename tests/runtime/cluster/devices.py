"""Run a cluster of separate processes on this machine: a hub, a manager and workers, each of which can be killed."""

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
from hyps.runtime.device.process_memory import LEAN_ENVIRONMENT
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import wait_for

#: The link is taken for fast, as by workers of `tests.runtime.cluster.fast`.
_NO_PROBE = """
from hyps.runtime.cluster.worker.hub_probe import HubProbe

assert HubProbe.start
HubProbe.start = lambda *_: None
"""

LIAR = """
from hyps.runtime.execution import executor
from hyps.runtime.cluster.cli.worker import main

honest = executor.Executor.run
executor.Executor.run = lambda *a, **k: {name: values + 1 for name, values in honest(*a, **k).items()}
main()
"""

QUITTER = """
import os, time
from hyps.runtime.calibration import rates
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.protocol.frames import MAGIC
from hyps.runtime.cluster.cli.worker import main

rates.conv_by_threads = lambda threads, rounds: dict.fromkeys(threads, 20_000_000_000)
honest = Connection.publish


def publish(connection, topic, payload, **options):
    honest(connection, topic, payload, **options)
    if payload.startswith(MAGIC):
        time.sleep(1)
        os._exit(1)


Connection.publish = publish
main()
"""

BOASTER = """
import time
from hyps.runtime.calibration import rates
from hyps.runtime.cluster.cli.worker import main
from hyps.runtime.execution import executor

rates.conv_by_threads = lambda threads, rounds: dict.fromkeys(threads, 90_000_000_000_000)
honest = executor.Executor.run


def run(*arguments, **options):
    time.sleep(2)
    return honest(*arguments, **options)


executor.Executor.run = run
main()
"""

SLOW_AT_SHARDS = """
import time
from hyps.runtime.execution import executor
from hyps.runtime.cluster.cli.worker import main

honest = executor.Executor.run


def run(self, *arguments, **options):
    if "-shard" in self.manifest.steps[0].name:
        print("computes", self.manifest.steps[0].name, flush=True)
        time.sleep(0.5)
    return honest(self, *arguments, **options)


executor.Executor.run = run
main()
"""

PACED = """
import time
from pathlib import Path
from hyps.runtime.calibration import rates
from hyps.runtime.cluster.cli.worker import main
from hyps.runtime.execution import executor

pace = Path(__file__).with_suffix(".pace")
claim = float(pace.read_text())
rates.conv_by_threads = lambda threads, rounds: dict.fromkeys(threads, int(claim))
honest = executor.Executor.run


def run(self, inputs, step_done=lambda _: None, **options):
    steps = iter(self.manifest.steps)

    def paced(profile):
        time.sleep(max(next(steps).multiply_adds, 100_000) / float(pace.read_text()))
        step_done(profile)

    return honest(self, inputs, paced, **options)


executor.Executor.run = run
main()
"""

PACED_FROM_MEMORY = """
import hashlib
import time
from pathlib import Path
from hyps.runtime.calibration import rates
from hyps.runtime.cluster.cli.worker import main
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.execution import executor
from hyps.runtime.execution.session import memory_of

pace = float(Path(__file__).with_suffix(".pace").read_text())
known = Path(__file__).with_name("answers")
known.mkdir(exist_ok=True)
rates.conv_by_threads = lambda threads, rounds: dict.fromkeys(threads, int(pace))
honest = executor.Executor.run


def run(self, inputs, step_done=lambda _: None, **options):
    until = time.monotonic()
    digest = hashlib.sha256(self.manifest.steps[0].name.encode())
    for name in sorted(inputs):
        digest.update(memory_of(inputs[name]))
    names = [each.name for each in self.manifest.outputs]
    files = {name: known / f"{digest.hexdigest()}-{name.replace('/', '-')}" for name in names}
    if all(file.exists() for file in files.values()):
        outputs = {name: to_value(file.read_bytes(), self.manifest.tensors[name]) for name, file in files.items()}
    else:
        outputs = honest(self, inputs, **options)
        for name, value in outputs.items():
            part = known / f"{files[name].name}.{Path(__file__).stem}"
            part.write_bytes(memory_of(value))
            part.replace(files[name])
    for step in self.manifest.steps:
        until += max(step.multiply_adds, 100_000) / pace
        time.sleep(max(0.0, until - time.monotonic()))
        step_done(None)
    return outputs


executor.Executor.run = run
main()
"""


class Devices:
    """The processes of one cluster, all ended with the ``stack``; `log` has what each wrote.

    With ``settings``, managers and workers run by `tests.runtime.cluster.fast`; without, they are the installed commands.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        bundle: Path,
        bin_folder: Path,
        mosquitto: str,
        settings: Settings | None = None,
    ) -> None:
        self._stack, self._folder, self.bundle, self._bin, self._mosquitto = stack, folder, bundle, bin_folder, mosquitto
        self.settings = settings
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._spawned: list[subprocess.Popen[bytes]] = []

    def start_hub(self) -> None:
        configuration = self._folder / "open.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
            f"max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}\n"
        )
        self.processes["hub"] = self._stack.enter_context(running(self._mosquitto, configuration, self.port))

    def start(self, workers: int, *options: str) -> None:
        """Start a manager and workers w0, w1 and so on; wait until all sub-bundles are loaded."""
        self.start_manager("--workers", str(workers), *options)
        for number in range(workers):
            self.start_worker(f"w{number}")
        self.wait_for_sub_bundles(workers=workers)

    def start_manager(self, *options: str) -> None:
        """Start the manager; it places pipelines unless the options say otherwise."""
        options = options if "--placement" in options else ("--placement", "pipeline", *options)
        hub: list[str | Path] = [] if "--join" in options else ["--hub", self.url]
        command: list[str | Path] = [self.bundle, *hub, "--journal", self._folder / "journal", "--verbose", *options]
        self.start_command("manager", "hyps-manager", command)

    def start_worker(self, name: str, *options: str, memory: str = "120MB") -> None:
        hub: list[str | Path] = [] if "--join" in options else ["--hub", self.url, "--name", name]
        cache = self._folder / f"{name}.cache"
        self.start_command(
            name, "hyps-worker", [*hub, "--memory", memory, "--threads", "1", "--cache", cache, "--verbose", *options]
        )

    def start_group(self, name: str, below: Devices, *options: str) -> None:
        """Start a worker that is the manager of the workers at another hub."""
        hub = [] if "--sub-join" in options else ["--sub-hub", below.url]
        cache = self._folder / f"{name}.cache"
        self.start_command(
            name, "hyps-worker", ["--hub", self.url, "--name", name, "--cache", cache, "--verbose", *hub, *options]
        )

    def start_program(self, name: str, text: str, *options: str, memory: str = "120MB") -> None:
        """Start a faulty worker.

        `LIAR` adds one to its results, `QUITTER` dies after the first chunk of one, `BOASTER` is slower than it claims,
        `SLOW_AT_SHARDS` takes half a second more for a shard of an operator, and says so,
        `PACED` computes as many multiply-adds a second as `pace` says, and claims what that said first.
        `PACED_FROM_MEMORY` does too, but each input is computed once, by whichever worker gets it first: it hardly needs
        a processor.
        """
        program = self._folder / f"{name}.py"
        program.write_text(_NO_PROBE + text)
        named: list[str | Path] = ["--hub", self.url, "--name", name, "--memory", memory, "--threads", "1", "--verbose"]
        cache: list[str | Path] = ["--cache", self._folder / name]
        self._spawn(name, [sys.executable, program, *named, *cache, *options], os.environ | {"HYPS_LEAN": "1"})

    def pace(self, name: str, macs_per_s: float) -> None:
        """Set the speed of a worker that runs `PACED`; it needs no processor for that."""
        written = self._folder / f"{name}.pace.new"
        written.write_text(str(macs_per_s))
        written.replace(self._folder / f"{name}.pace")

    def start_paced(self, name: str, macs_per_s: float) -> None:
        """Start a worker of this speed, on whatever machine."""
        self.pace(name, macs_per_s)
        self.start_program(name, PACED)

    def start_paced_from_memory(self, name: str, macs_per_s: float, *options: str, memory: str) -> None:
        """Start a worker of this speed, for inputs that were computed before."""
        self.pace(name, macs_per_s)
        self.start_program(name, PACED_FROM_MEMORY, *options, memory=memory)

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def freeze(self, name: str) -> None:
        """Stop a process, like a board whose link broke: it sends nothing and takes nothing."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def log(self, name: str) -> str:
        path = self._folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    @property
    def hyps_run(self) -> Path:
        return self._bin / "hyps-run"

    def engine(self, *, exact: bool = False) -> ClusterEngine:
        return ClusterEngine(self.bundle, self.url, None, exact=exact)

    def wait_for_sub_bundles(self, workers: int = 0) -> None:
        """Wait until every sub-bundle of the last placement is loaded."""

        def loaded() -> bool:
            lives = dict(re.findall(r"sub-bundle (\d+ on \w+): \w+ -> (\w+)$", self.log("manager"), re.MULTILINE))
            ready = {life.split()[0] for life, state in lives.items() if state in ("loaded", "inferring", "computed")}
            homes = {life.split()[-1] for life, state in lives.items() if state != "lost"}
            waits = {"placed", "loading"} & {*lives.values()}
            return len(homes) >= workers and not waits and bool(ready) and ready == {life.split()[0] for life in lives}

        wait_for(lambda: f"loaded sub-bundles: {self.log('manager')}", loaded)

    def resident_bytes(self, name: str, figure: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return int(re.findall(rf"{figure}:\s+(\d+)", status)[0]) * 1024

    def command(self, name: str, *arguments: str | Path) -> list[str | Path]:
        """Return the command line of an installed command, with the settings if there are any."""
        return self.settings.command(name, *arguments) if self.settings else [self._bin / name, *arguments]

    def start_command(self, name: str, command: str, options: list[str | Path]) -> None:
        """Start ``hyps-manager`` or ``hyps-worker`` as the process ``name``."""
        lean = LEAN_ENVIRONMENT if self.settings else {}  # spares the command to start itself again with it
        self._spawn(name, self.command(command, *options), {**os.environ, **lean})

    def _spawn(self, name: str, command: list[str | Path], environment: dict[str, str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.processes[name] = process
        self._spawned.append(process)
        self._stack.callback(self._end)

    def _end(self) -> None:
        """End all managers and workers at once; a hub is ended after them, by the ``stack``."""
        for process in self._spawned:
            process.send_signal(signal.SIGCONT)  # a frozen one would not end
            process.terminate()
        for process in self._spawned:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._spawned.clear()
