"""Compilations that the page asks for: ``hypsc`` in a process of its own, its memory and its time bounded.

A model is somebody's file: whatever it does to the compiler, the manager goes on.
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

import msgspec

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.web.errors import Busy, Missing, WebFault
from hyps.runtime.web.library import Library
from hyps.runtime.web.schemas import Build, BuildRequest, PlanView, TargetView

#: Set the limits in the new process, then become the compiler. RLIMIT_DATA leaves mapped files out; it dies with the
#: manager (prctl's PR_SET_PDEATHSIG).
_LIMITED = "import ctypes, os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2); \
os.nice(10); ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[2], sys.argv[2:])"
_MOST_BUILDS, _MOST_WAITING = 50, 8
#: A file beside a model with this name has the names of its classes, a line each.
LABELS = "labels.txt"
_OUTPUT_BYTES = 64 << 20
#: How hypsc ends when its user can mend something.
_REFUSED = 2
log = logging.getLogger(__name__)


class Builds:
    """Done one after the other, in the spool: what is ended there leaves nothing.

    ``changed`` is told of each that begins and ends, ``keep`` of each bundle and its name (on any thread).
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
        """The devices that hypsc knows. Raises `WebFault` where it is not installed."""
        if self._targets is None:
            done = subprocess.run([_hypsc(), "targets", "list", "--json"], capture_output=True, check=False, timeout=60)
            if done.returncode:
                raise WebFault(_last_line(done.stderr))
            known = msgspec.json.decode(done.stdout)
            self._targets = [TargetView(**{name: each[name] for name in TargetView.model_fields}) for each in known]
        return self._targets

    def start(self, model: str, request: BuildRequest, budget_bytes: int | None) -> Build:
        """Compile a model, when those before are done. Raises `WebFault`."""
        source = self._library.model(model)
        name = request.bundle or model
        self._library.ours(name)
        if request.target is not None and request.target not in {each.name for each in self.targets()}:
            raise Missing(f"there is no target {request.target}; GET /api/targets lists them")
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
                raise Busy(f"{_MOST_WAITING} compilations are under way; wait for one to end")
            self._builds[build.id] = build
            while len(self._builds) > _MOST_BUILDS:
                self._builds.popitem(last=False)
        self._changed(build)
        self._pool.submit(self._build, build, command)
        return build

    def all(self) -> list[Build]:
        """The last ones, the newest first."""
        with self._lock:
            return [*reversed(self._builds.values())]

    def get(self, name: str) -> Build:
        """One of them. Raises `Missing`."""
        with self._lock:
            if name not in self._builds:
                raise Missing("there is no such compilation")
            return self._builds[name]

    def cancel(self, name: str) -> None:
        """End one that runs or waits. Raises `Missing`."""
        if self.get(name).state == "running":
            self._say(name, state="cancelled")
            with self._lock:
                process = self._processes.get(name)
            if process:
                _kill(process)

    def close(self) -> None:
        """End all."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for build in self.all():
            self.cancel(build.id)

    def _build(self, build: Build, command: list[str | Path]) -> None:
        """(On the thread of builds.) The bundle of a dry run goes where those of failed ones go."""
        if self.get(build.id).state != "running":
            return
        began, plan, message = time.monotonic(), None, None
        try:
            with tempfile.TemporaryDirectory(prefix="build-", dir=self._library.spool) as scratch:
                made = Path(scratch, "bundle")
                plan, message = self._compile(build.id, [*command, "-o", made])
                if plan and build.bundle and self.get(build.id).state == "running":
                    self._keep(build.bundle, made)
        except (OSError, RuntimeFault) as error:
            plan, message = None, str(error)
        except Exception as error:
            log.exception("a bug: a compilation of the page")
            plan, message = None, f"it could not be compiled: {type(error).__name__}"
        if self.get(build.id).state == "running":
            state = "done" if plan else "failed"
            self._say(build.id, state=state, plan=plan, message=message, seconds=time.monotonic() - began)

    def _compile(self, name: str, arguments: list[str | Path]) -> tuple[PlanView | None, str | None]:
        command = [sys.executable, "-c", _LIMITED, str(self._memory_bytes), _hypsc(), *map(str, arguments)]
        with (
            tempfile.TemporaryFile(dir=self._library.spool) as out,
            tempfile.TemporaryFile(dir=self._library.spool) as errors,
        ):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True)
            with self._lock:
                self._processes[name] = process
            try:
                if self.get(name).state != "running":
                    _kill(process)
                process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
                return None, f"compiling took longer than {self._seconds:.0f} s and was ended; see --build-seconds"
            finally:
                with self._lock:
                    del self._processes[name]
            out.seek(0)
            errors.seek(0)
            if process.returncode:
                return None, self._why(process.returncode, _last_line(errors.read(_OUTPUT_BYTES)))
            summary = msgspec.json.decode(out.read(_OUTPUT_BYTES))
        partitions = [{key: each[key] for key in _PARTITION} for each in summary["partitions"]]
        plan = {key: summary[key] for key in PlanView.model_fields if key != "partitions"}
        return PlanView.model_validate({**plan, "partitions": partitions}), None

    def _why(self, status: int, said: str) -> str:
        """Why hypsc ended with ``status``, where its last words were ``said``."""
        if status == _REFUSED:
            return said
        if status < 0 or any(word in said for word in ("emory", "bad_alloc")):
            return f"compiling needs more than {self._memory_bytes / 1e9:.1f} GB; see --build-memory"
        return f"hypsc ended with {status}: {said}"

    def _say(self, name: str, **changes: object) -> None:
        with self._lock:
            changed = self._builds[name] = self._builds[name].model_copy(update=changes)
        self._changed(changed)


_PARTITION = (
    "name",
    "operators",
    "inputs",
    "outputs",
    "weight_bytes",
    "activation_bytes",
    "peak_bytes",
    "leaving_bytes",
    "reason",
)


def _hypsc() -> str:
    beside = Path(sys.executable).with_name("hypsc")
    found = str(beside) if beside.exists() else shutil.which("hypsc")
    if found is None:
        raise WebFault("this manager cannot compile: pip install 'hyps[compiler]'")
    return found


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("hypsc: ")[:1000] if lines else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
