"""Images and tensors that the page or a program submits: queued, read, computed by the cluster, remembered for a while."""

from __future__ import annotations

import logging
import math
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.io.files import save
from hyps.runtime.io.inputs import InputSource, read_tensors
from hyps.runtime.io.results import top_classes
from hyps.runtime.web.cluster import Cluster
from hyps.runtime.web.errors import Busy, Conflict, Missing, WebFault
from hyps.runtime.web.library import Library
from hyps.runtime.web.schemas import JobView, ScoredView, SpanView

#: Of the last jobs so many are known; so many wait at most; so many are under way, which makes a pipeline.
_KEPT, _MOST_WAITING, _UNDER_WAY = 200, 64, 4
#: What decoding one picture may take.
_ROOM_BYTES = 192 << 20
log = logging.getLogger(__name__)


class Jobs:
    """``changed`` is told of each job that begins and ends (on any thread)."""

    def __init__(self, cluster: Cluster, library: Library, changed: Callable[[JobView], None]) -> None:
        self._cluster, self._library, self._changed = cluster, library, changed
        self._jobs: OrderedDict[str, JobView] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[str | None] = queue.Queue()
        for number in range(_UNDER_WAY):
            threading.Thread(target=self._serve, name=f"page's client {number}", daemon=True).start()

    def room(self) -> str:
        """The bundle that will compute. Raises `Busy` where too many wait, `Conflict` where none is served."""
        if self._waiting.qsize() >= _MOST_WAITING:
            raise Busy(f"{_MOST_WAITING} inputs wait; try again when some are done")
        if (bundle := self._cluster.bundle) is None:
            raise Conflict("no bundle is served; choose one first")
        return bundle

    def new(self) -> tuple[str, Path]:
        """A job's number, and where its input is to be written."""
        name = secrets.token_hex(16)
        return name, self._input(name)

    def submit(self, job: str, name: str) -> JobView:
        """Compute an input that was written, or remove it. Raises `Busy`, `Conflict`."""
        try:
            bundle = self.room()
        except WebFault:
            self._input(job).unlink(missing_ok=True)
            raise
        made = JobView(id=job, name=name, bundle=bundle, state="waiting", submitted_at=time.time())
        with self._lock:
            self._jobs[job] = made
            gone = [self._jobs.popitem(last=False)[0] for _ in range(len(self._jobs) - _KEPT)]
        for each in gone:
            self._outputs(each).unlink(missing_ok=True)
        self._changed(made)
        self._waiting.put(job)
        return made

    def all(self) -> list[JobView]:
        """The last ones, the newest first."""
        with self._lock:
            return [*reversed(self._jobs.values())]

    def get(self, job: str) -> JobView:
        """One of them. Raises `Missing`."""
        with self._lock:
            if job not in self._jobs:
                raise Missing("there is no such job, or it was long ago")
            return self._jobs[job]

    def outputs(self, job: str) -> Path:
        """The file with all of a job's outputs. Raises `Missing`, `Conflict`."""
        if self.get(job).state != "done":
            raise Conflict("the job is not done")
        if not (path := self._outputs(job)).is_file():
            raise Missing("its outputs are gone")
        return path

    def close(self) -> None:
        """No more are begun."""
        for _ in range(_UNDER_WAY):
            self._waiting.put(None)

    def _input(self, job: str) -> Path:
        return self._library.spool / f"{job}.input"

    def _outputs(self, job: str) -> Path:
        return self._library.spool / f"{job}.npz"

    def _serve(self) -> None:
        """(On a thread of its own.) Compute what is submitted."""
        while job := self._waiting.get():
            source = self._input(job)
            try:
                self._compute(job, source)
            except RuntimeFault as fault:
                self._say(job, state="failed", reason=str(fault))
            except Exception as error:
                log.exception("a bug: a job of the page")
                self._say(job, state="failed", reason=f"it could not be computed: {type(error).__name__}")
            finally:
                source.unlink(missing_ok=True)

    def _compute(self, job: str, source: Path) -> None:
        self._say(job, state="running")
        began = time.monotonic()
        asked = self.get(job)
        with closing(self._cluster.engine(asked.bundle)) as engine:
            manifest = engine.manifest
            tensors = read_tensors(InputSource(name=asked.name, content=source), manifest, _ROOM_BYTES)
            found = engine.run(tensors, job=job)
        seconds = time.monotonic() - began
        save(self._outputs(job), found)
        top = [
            ScoredView(index=each.index, label=each.label, score=each.score if math.isfinite(each.score) else None)
            for each in top_classes(manifest, found, 5)
        ]
        status = self._cluster.status()
        names = {share.number: (share.first, share.last) for share in status.sub_bundles} if status else {}
        spans = [_view(span, *names.get(span.sub_bundle, ("", ""))) for span in self._cluster.spans(job)]
        self._say(job, state="done", top=top, seconds=seconds, spans=spans)

    def _say(self, job: str, **changes: Any) -> None:
        with self._lock:
            if job not in self._jobs:
                return
            changed = self._jobs[job] = self._jobs[job].model_copy(update=changes)
        self._changed(changed)


def _view(span: Span, first: str, last: str) -> SpanView:
    fields = asdict(span)
    fields |= {"share": fields.pop("sub_bundle"), "first": first, "last": last, "steps_s": [*span.steps_s]}
    return SpanView(**fields)
