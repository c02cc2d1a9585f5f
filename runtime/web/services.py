"""Join the parts that the routes call: the library, compilations, jobs, boards and events of one manager."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES
from hyps.runtime.web.boards import Boards, missing_steps
from hyps.runtime.web.builds import Builds
from hyps.runtime.web.cluster import Cluster
from hyps.runtime.web.errors import Conflict
from hyps.runtime.web.events import Events, Pump, event
from hyps.runtime.web.jobs import Jobs
from hyps.runtime.web.library import Library
from hyps.runtime.web.schemas import Build, BuildRequest, BundleView, PartitionLine, ReasonView, StatusView

#: Seconds between two statuses at the hub while no bundle is served.
_IDLE_S = 1.0


class WebServices:
    """The parts of one manager that its page uses.

    ``given`` is the bundle that the manager was started with, and the folder of its journal.
    """

    def __init__(
        self,
        cluster: Cluster,
        library: Library,
        given: tuple[Path, Path] | None,
        *,
        build_bytes: int,
        build_s: float,
        input_bytes: int,
    ) -> None:
        self.cluster, self.library, self.input_bytes = cluster, library, input_bytes
        self._given, self._idle_at = given, 0.0
        self._lock = threading.Lock()  # held while a bundle is added, removed or chosen
        self.boards, self.events = Boards(cluster), Events()
        self.pump = Pump(self.events, self._observe)
        self.builds = Builds(library, build_bytes, build_s, lambda build: self.events.publish("build", build), self._keep)
        self.jobs = Jobs(cluster, library, lambda job: self.events.publish("job", job))

    def serve(self, name: str) -> None:
        """Serve a bundle. Raises `RuntimeFault`."""
        folder = self.library.bundle(name)
        journal = self._given[1] if self._given and folder == self._given[0] else self.library.journal(name)
        with self._lock:
            self.cluster.serve(name, folder, journal)
        self.library_changed()

    def build(self, model: str, request: BuildRequest) -> Build:
        """Start to compile a model. Raises `WebFault`."""
        if not request.dry_run:
            self._check_not_served(request.bundle or model)
        budget_bytes = request.memory_bytes
        if request.workers or (budget_bytes is None and request.target is None):
            sizes = [worker.memory_bytes for worker in self.cluster.workers() if not worker.drained]
            if not sizes:
                raise Conflict("no worker is connected; start hyps-worker on a board, or name a target or a budget")
            budget_bytes = min(*sizes, (budget_bytes or sizes[0]) + CLUSTER_BYTES) - CLUSTER_BYTES
        return self.builds.start(model, request, budget_bytes)

    def bundle(self, name: str) -> BundleView:
        """Return a bundle with its partitions. Raises `RuntimeFault`."""
        manifest = read_manifest(self.library.bundle(name))
        (line,) = (each for each in self.library.bundles(self.cluster.bundle) if each.name == name)
        return BundleView(
            **line.model_dump(),
            partitions=[_partition(manifest, step) for step in manifest.steps],
            photographs=manifest.preprocess is not None,
            labels=len(manifest.labels or ()),
        )

    def delete_bundle(self, name: str) -> None:
        """Delete a bundle that is not served. Raises `Conflict`, `Missing`."""
        with self._lock:
            self._check_not_served(name)
            self.library.delete_bundle(name)
        self.library_changed()

    def library_changed(self) -> None:
        """Tell the pages that models or bundles were added or removed."""
        self.events.publish("library", self._listing())

    def first_events(self) -> list[bytes]:
        """Return the events that a page starts with."""
        return [
            event("status", self.boards.view()),
            event("jobs", self.jobs.all()),
            event("builds", self.builds.all()),
            event("library", self._listing()),
        ]

    def close(self) -> None:
        """End everything."""
        self.pump.close()
        self.events.close()
        self.jobs.close()
        self.builds.close()
        self.cluster.close()

    def _observe(self) -> StatusView:
        """Return the status; jobs that nobody can compute are marked with the steps that no board holds."""
        status = self.boards.view()
        if time.monotonic() > self._idle_at + _IDLE_S:
            self._idle_at = time.monotonic()
            self.cluster.publish_idle()
        missing = missing_steps(status.shares)
        self.jobs.block(f"{missing}, or cancel the job" if missing else None)
        return status

    def _keep(self, name: str, folder: Path) -> None:
        """Add a compiled bundle to the library; this runs on the thread of the compilations."""
        with self._lock:
            self._check_not_served(name)
            self.library.keep(name, folder)
        self.library_changed()

    def _check_not_served(self, name: str) -> None:
        if name == self.cluster.bundle:
            raise Conflict(f"bundle {name} is served; serve another first, or choose another name")

    def _listing(self) -> dict[str, object]:
        return {"models": self.library.models(), "bundles": self.library.bundles(self.cluster.bundle)}


def _partition(manifest: Manifest, step: Step) -> PartitionLine:
    return PartitionLine(
        name=step.name,
        operators=[*step.operators],
        inputs=[*step.inputs],
        outputs=[*step.outputs],
        weight_bytes=step.weight_bytes,
        activation_bytes=step.activation_bytes,
        peak_bytes=step.peak_bytes,
        leaving_bytes=sum(manifest.tensors[name].nbytes for name in step.live),
        reason=ReasonView(kind=step.reason.kind, text=step.reason.text) if step.reason else None,
    )
