"""Compile models for the page: ``hypsc`` runs in its own process, with bounded memory and time.

A model is an untrusted file: the manager must survive whatever it does to the compiler.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.suggestions import install
from hyps.runtime.web.errors import Busy, Missing, WebFault
from hyps.runtime.web.library import Library
from hyps.runtime.web.schemas import Build, BuildRequest, PartitionLine, PlanView, TargetView

#: Sets the limits in the new process, then becomes the compiler. RLIMIT_DATA does not count mapped files; the process is
#: killed when the manager ends (prctl's PR_SET_PDEATHSIG).
_LIMITED = "import ctypes, os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2); \
os.nice(10); ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[2], sys.argv[2:])"
#: Compilations that are remembered, and those that may run or wait at a time.
_MOST_BUILDS, _MOST_WAITING = 50, 8
#: The file of a model that holds the labels of its classes, one per line.
LABELS = "labels.txt"
_OUTPUT_BYTES = 64 << 20
#: hypsc's exit code when its user can correct something.
_REFUSED = 2
_log = logging.getLogger(__name__)


class Builds:
    """The last compilations; they run one after the other, and write into the spool until they are complete.

    ``changed`` is called with each compilation that starts or ends, ``keep`` with each new bundle's name and folder; both
    may run on any thread.
    """

    def __init__(
        self,
        library: Library,
        memory_bytes: int,
        seconds: float,
        changed: Callable[[Build], None],
        keep: Callable[[str, Path], None],
    ) -> None:
        self._library, self._memory_bytes, self._seconds = library, memory_bytes, seconds
        self._changed, self._keep = changed, keep
        self._builds: OrderedDict[str, Build] = OrderedDict()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="build")
        self._targets: list[TargetView] | None = None

    def targets(self) -> list[TargetView]:
        """Return the devices that hypsc can compile for. Raises `WebFault` if it is not installed."""
        if self._targets is None:
            done = subprocess.run([_hypsc(), "targets", "list", "--json"], capture_output=True, check=False, timeout=60)
            if done.returncode:
                raise WebFault(_last_line(done.stderr))
            targets = msgspec.json.decode(done.stdout)
            self._targets = [TargetView(**{name: each[name] for name in TargetView.model_fields}) for each in targets]
        return self._targets

    def start(self, model: str, request: BuildRequest, budget_bytes: int | None) -> Build:
        """Queue the compilation of a model behind the earlier ones. Raises `WebFault`."""
        source = self._library.model(model)
        name = request.bundle or model
        self._library.writable(name)
        if request.target is not None and request.target not in {each.name for each in self.targets()}:
            raise Missing(f"target {request.target} does not exist; GET /api/targets lists them")
        command: list[str | Path] = ["compile", source, "--split", request.split, "--json"]
        if request.target:
            command += ["--target", request.target]
        if budget_bytes:
            command += ["--memory", f"{budget_bytes / 1e6:.6f}MB"]
        if request.preprocess:
            command += ["--preprocess", request.preprocess]
        if (labels := source.with_name(LABELS)).exists():
            command += ["--labels", labels]
        bundle = None if request.dry_run else name
        build = Build(
            id=secrets.token_hex(8), model=model, state="running", dry_run=request.dry_run, bundle=bundle,
            began_at=time.time(), seconds=0.0,
        )  # fmt: skip
        with self._lock:
            if sum(each.state == "running" for each in self._builds.values()) >= _MOST_WAITING:
                raise Busy(f"{_MOST_WAITING} compilations are under way; wait until one ends, or cancel one")
            self._builds[build.id] = build
            while len(self._builds) > _MOST_BUILDS:
                self._builds.popitem(last=False)
        self._changed(build)
        self._pool.submit(self._build, build, command)
        return build

    def all(self) -> list[Build]:
        """Return the last compilations, the newest first."""
        with self._lock:
            return [*reversed(self._builds.values())]

    def get(self, id: str) -> Build:
        """Return a compilation. Raises `Missing`."""
        with self._lock:
            if id not in self._builds:
                raise Missing("this compilation does not exist, or it is too old to be remembered")
            return self._builds[id]

    def cancel(self, id: str) -> None:
        """End a compilation that runs or waits. Raises `Missing`."""
        if self.get(id).state == "running":
            self._update(id, state="cancelled")
            with self._lock:
                process = self._processes.get(id)
            if process:
                _kill(process)

    def close(self) -> None:
        """End all compilations."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for build in self.all():
            self.cancel(build.id)

    def _build(self, build: Build, command: list[str | Path]) -> None:
        """Compile and keep the bundle; this runs on the pool's thread. The bundle of a dry run is not kept."""
        if self.get(build.id).state != "running":
            return
        began, plan, message = time.monotonic(), None, None
        try:
            with tempfile.TemporaryDirectory(prefix="build-", dir=self._library.spool) as scratch:
                bundle = Path(scratch, "bundle")
                plan, message = self._compile(build.id, [*command, "-o", bundle])
                if plan and build.bundle and self.get(build.id).state == "running":
                    self._keep(build.bundle, bundle)
        except (OSError, RuntimeFault) as error:
            plan, message = None, str(error)
        except Exception as error:
            _log.exception("a bug: a compilation of the page")
            plan, message = None, f"a bug of HyPS: {type(error).__name__}"
        if self.get(build.id).state == "running":
            state = "done" if plan else "failed"
            self._update(build.id, state=state, plan=plan, message=message, seconds=time.monotonic() - began)

    def _compile(self, id: str, arguments: list[str | Path]) -> tuple[PlanView | None, str | None]:
        """Return the plan, or why there is none."""
        command = [sys.executable, "-c", _LIMITED, str(self._memory_bytes), _hypsc(), *map(str, arguments)]
        with (
            tempfile.TemporaryFile(dir=self._library.spool) as out,
            tempfile.TemporaryFile(dir=self._library.spool) as errors,
        ):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True)
            with self._lock:
                self._processes[id] = process
            try:
                if self.get(id).state != "running":
                    _kill(process)
                process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
                limit = f"{self._seconds:.0f} s"
                return None, f"compiling took longer than {limit}; start the manager with a larger --build-seconds"
            finally:
                with self._lock:
                    del self._processes[id]
            out.seek(0)
            errors.seek(0)
            if process.returncode:
                return None, self._why(process.returncode, _last_line(errors.read(_OUTPUT_BYTES)))
            summary = msgspec.json.decode(out.read(_OUTPUT_BYTES))
        return _plan(summary), None

    def _why(self, status: int, said: str) -> str:
        """Return why hypsc failed, from its exit code ``status`` and the last line that it printed, ``said``."""
        if status == _REFUSED:
            return said
        if status < 0 or any(word in said for word in ("emory", "bad_alloc")):
            limit = f"{self._memory_bytes / 1e9:.1f} GB"
            return f"compiling needs more than {limit}; start the manager with a larger --build-memory"
        return f"hypsc ended with exit code {status}: {said}"

    def _update(self, id: str, **changes: object) -> None:
        with self._lock:
            build = self._builds[id] = self._builds[id].model_copy(update=changes)
        self._changed(build)


def _plan(summary: dict[str, Any]) -> PlanView:
    """Return the plan in what ``hypsc compile --json`` printed."""
    partitions = [{key: each[key] for key in PartitionLine.model_fields} for each in summary["partitions"]]
    plan = {key: summary[key] for key in PlanView.model_fields if key != "partitions"}
    return PlanView.model_validate({**plan, "partitions": partitions})


def _hypsc() -> str:
    installed = Path(sys.executable).with_name("hypsc")
    command = str(installed) if installed.exists() else shutil.which("hypsc")
    if command is None:
        raise WebFault(f"this manager cannot compile; on its machine, {install('compiler')}")
    return command


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("hypsc: ")[:1000] if lines else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
