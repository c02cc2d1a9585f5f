"""Queue the inputs that the page or a program submits, have the cluster compute them, and keep the answers for a while."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.engine import in_memory, only_outputs
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.exits.answer_report import answered_elsewhere
from hyps.runtime.exits.report import ExitReport
from hyps.runtime.io.files import save
from hyps.runtime.io.inputs import InputSource, read_tensors
from hyps.runtime.io.results import top_classes
from hyps.runtime.web.cluster import Cluster
from hyps.runtime.web.errors import Busy, Conflict, Missing, WebFault
from hyps.runtime.web.library import Library
from hyps.runtime.web.schemas import JobExitView, JobView, ScoredView, SpanView

#: Jobs that are remembered, jobs that may wait, and jobs under way at a time, which form a pipeline.
_KEPT, _MOST_WAITING, _UNDER_WAY = 200, 64, 4
#: Bytes that decoding one picture may take.
_DECODING_BYTES = 192 << 20
_UNFINISHED = ("waiting", "running")
_log = logging.getLogger(__name__)


class Jobs:
    """The last jobs. ``changed`` is called with each job that starts, ends or is blocked, on any thread."""

    def __init__(self, cluster: Cluster, library: Library, changed: Callable[[JobView], None]) -> None:
        self._cluster, self._library, self._changed = cluster, library, changed
        self._jobs: OrderedDict[str, JobView] = OrderedDict()
        self._engines: dict[str, ClusterEngine] = {}  # of the jobs under way
        self._lock = threading.Lock()
        self._waiting: queue.Queue[str | None] = queue.Queue()
        for number in range(_UNDER_WAY):
            threading.Thread(target=self._serve, name=f"page's client {number}", daemon=True).start()

    def check_accepting(self) -> str:
        """Return the bundle that computes the next job. Raises `Busy` if too many wait, `Conflict` if none is served."""
        if self._waiting.qsize() >= _MOST_WAITING:
            raise Busy(f"{_MOST_WAITING} inputs wait; try again when some are done")
        if (bundle := self._cluster.bundle) is None:
            raise Conflict("no bundle is served; serve one first")
        return bundle

    def new(self) -> tuple[str, Path]:
        """Return a new job's identifier, and the file to write its input to."""
        id = secrets.token_hex(16)
        return id, self._input(id)

    def submit(self, id: str, name: str, *, exact: bool = False) -> JobView:
        """Queue a job whose input is written; the input is removed if the job is refused. Raises `Busy`, `Conflict`.

        Nothing of an ``exact`` job's answer is decoded.
        """
        try:
            bundle = self.check_accepting()
        except WebFault:
            self._input(id).unlink(missing_ok=True)
            raise
        job = JobView(id=id, name=name, bundle=bundle, state="waiting", submitted_at=time.time(), exact=exact)
        with self._lock:
            self._jobs[id] = job
            dropped = [self._jobs.popitem(last=False)[0] for _ in range(len(self._jobs) - _KEPT)]
        for each in dropped:
            self._outputs(each).unlink(missing_ok=True)
        self._changed(job)
        self._waiting.put(id)
        return job

    def all(self) -> list[JobView]:
        """Return the last jobs, the newest first."""
        with self._lock:
            return [*reversed(self._jobs.values())]

    def get(self, id: str) -> JobView:
        """Return a job. Raises `Missing`."""
        with self._lock:
            if id not in self._jobs:
                raise Missing("this job does not exist, or it is too old to be remembered")
            return self._jobs[id]

    def outputs(self, id: str) -> Path:
        """Return the file with all outputs of a job. Raises `Missing`, `Conflict`."""
        if (job := self.get(id)).state != "done":
            raise Conflict(f"the job has no outputs; it is {job.state}")
        if not (path := self._outputs(id)).is_file():
            raise Missing("the job's outputs are gone; submit the input again")
        return path

    def cancel(self, id: str) -> None:
        """End a job that waits or runs; the cluster gives it up. Raises `Missing`."""
        if self.get(id).state in _UNFINISHED:
            self._update(id, state="cancelled", blocked=None)
            with self._lock:
                engine = self._engines.get(id)
            if engine:
                engine.cancel()

    def block(self, reason: str | None) -> None:
        """Mark all unfinished jobs with the reason why nobody can compute them; None says that they proceed."""
        for job in self.all():
            if job.state in _UNFINISHED and job.blocked != reason:
                self._update(job.id, blocked=reason)

    def close(self) -> None:
        """Start no more jobs."""
        for _ in range(_UNDER_WAY):
            self._waiting.put(None)

    def _input(self, id: str) -> Path:
        return self._library.spool / f"{id}.input"

    def _outputs(self, id: str) -> Path:
        return self._library.spool / f"{id}.npz"

    def _serve(self) -> None:
        """Compute jobs as they come; this runs on a thread of its own."""
        while id := self._waiting.get():
            source = self._input(id)
            try:
                self._compute(id, source)
            except RuntimeFault as fault:
                self._update(id, state="failed", blocked=None, reason=str(fault))
            except Exception as error:
                _log.exception("a bug: a job of the page")
                self._update(id, state="failed", blocked=None, reason=f"a bug of HyPS: {type(error).__name__}")
            finally:
                source.unlink(missing_ok=True)

    def _compute(self, id: str, source: Path) -> None:
        self._update(id, state="running")
        job = self.get(id)
        if job.state == "cancelled":
            return
        began = time.monotonic()
        with closing(self._cluster.engine(job.bundle, exact=job.exact)) as engine:
            manifest = engine.manifest
            tensors = read_tensors(InputSource(name=job.name, content=source), manifest, _DECODING_BYTES)
            with self._lock:
                self._engines[id] = engine
            try:
                if self._is_cancelled(id):
                    return
                (result,) = engine.run(in_memory([tensors]), job=id)
                outputs = only_outputs([result])
            finally:
                with self._lock:
                    del self._engines[id]
                if self._is_cancelled(id):
                    with suppress(Busy):
                        self._cluster.cancel(id)
        seconds = time.monotonic() - began
        save(self._outputs(id), outputs)
        top = [
            ScoredView(index=each.index, label=each.label, score=each.score) for each in top_classes(manifest, outputs, 5)
        ]
        status = self._cluster.status()
        names = {share.number: (share.first, share.last) for share in status.sub_bundles} if status else {}
        spans = [_view(span, *names.get(span.sub_bundle, ("", ""))) for span in self._cluster.spans(id)]
        decoded = {"decoded": [*result.decoded], "error_bound": result.error_bound}
        exit = _exit_view(result.exit or _at_the_end(manifest, outputs)) if manifest.exits else None
        self._update(id, state="done", blocked=None, top=top, seconds=seconds, spans=spans, exit=exit, **decoded)

    def _is_cancelled(self, id: str) -> bool:
        with self._lock:
            return id in self._jobs and self._jobs[id].state == "cancelled"

    def _update(self, id: str, **changes: Any) -> None:
        """Change a job and say so; a job that has ended, or is not remembered any more, stays as it is."""
        with self._lock:
            if id not in self._jobs or self._jobs[id].state not in _UNFINISHED:
                return
            job = self._jobs[id] = self._jobs[id].model_copy(update=changes)
        self._changed(job)


def _exit_view(report: ExitReport) -> JobExitView:
    return JobExitView(
        output=report.output,
        number=report.number,
        count=report.count,
        confidence=report.confidence,
        steps_not_run=report.steps_not_run,
        at=report.at,
    )


def _at_the_end(manifest: Manifest, outputs: Outputs) -> ExitReport:
    return answered_elsewhere(manifest, len(manifest.exits), outputs, "network", 0.0)


def _view(span: Span, first: str, last: str) -> SpanView:
    fields = asdict(span)
    fields |= {"share": fields.pop("sub_bundle"), "first": first, "last": last, "steps_s": [*span.steps_s]}
    return SpanView(**fields)
