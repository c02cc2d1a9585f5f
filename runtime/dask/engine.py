"""The `hyps.runtime.execution.engine.Engine` of a Dask cluster: steps become tasks, tensors travel between its workers.

Dask gives tasks to workers that have the memory (the resource ``memory``, in bytes), moves tensors between them, reruns what
a lost worker had, lets workers come and go, and shows all this on its dashboard. Whoever can reach the scheduler can run
programs on its workers: keep the cluster on a private network, or use TLS (``dask+tls://``, with certificates as in Dask's
configuration, ``distributed.comm.tls``).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path
from typing import Any

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address
from hyps.runtime.dask import tasks
from hyps.runtime.dask.connect import DaskCluster, connect
from hyps.runtime.dask.task_plan import Stage, TaskPlan, one_task_plan, task_plan
from hyps.runtime.errors import EngineError, InputError, RuntimeFault
from hyps.runtime.execution.engine import (
    ROOM_MARGIN_BYTES,
    EngineAnswer,
    EngineInput,
    GroupTiming,
    InferenceResult,
    InputTensors,
    Observer,
    failed,
    failed_run,
    in_memory,
    only_answer,
    run_in_turn,
)
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits

#: Inputs of one task: a few, so that weights are read once for them; fewer where they are large.
_CHUNK, _CHUNK_BYTES = 16, 8_000_000
#: Tasks under way for each worker: one that runs and one that waits.
_TASKS_PER_WORKER = 2
_RETRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSchedule:
    """A task plan and what it needs to run: a ticket for each stage, the inputs of one task, the tasks under way."""

    plan: TaskPlan
    tickets: tuple[tasks.Ticket, ...]
    chunk: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Inputs that are computed together: their numbers and names, when they were submitted, and Dask's futures."""

    inputs: tuple[tuple[int, str], ...]
    began: float
    futures: tuple[Any, ...]


class DaskEngine:
    """An engine that has Dask compute; ``url`` is dask://HOST:PORT, dask+tls://HOST:PORT or dask://local.

    Workers fetch files from this process, once each. With ``repeat`` each input is computed that often, one after the other.
    ``exit_policy`` names a policy: a worker then computes an input to the exit where that ends it. So it does with a
    deadline, which counts from when the worker has the input. Raises `EngineError` where there is no such cluster,
    `PolicyError` for a policy that is none.
    """

    def __init__(
        self, bundle: Path, url: str, *, repeat: int = 1, exit_policy: str = "never", deadline_s: float = math.inf
    ) -> None:
        self._bundle, self._repeat = bundle, repeat
        self._manifest = read_manifest(bundle).without_parity()
        decides = exit_policy != "never" or not math.isinf(deadline_s)
        self._policy = read_policy(exit_policy, bundle_exits(self._manifest)) if decides else None
        self._deadline_s = deadline_s
        check_sendable(self._manifest, largest_bytes=None)  # Dask's own messages carry them
        check_files(bundle, self._manifest)
        self._cluster: DaskCluster = connect(url)
        self._schedules: dict[int, TaskSchedule] = {}
        try:
            self._workers = self._cluster.memory_bytes()
            self._server = FileServer(local_address(self._cluster.host, self._cluster.port), tls=self._cluster.tls)
        except BaseException:
            self._cluster.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._manifest

    def run(self, inputs: Iterable[EngineInput], observer: Observer | None = None) -> Iterator[InferenceResult]:
        """Yield results in the order of the inputs; the result of an unreadable input comes at once.

        The length hint of the ``inputs`` decides how steps become tasks; without one, a single input is expected. Few inputs
        are under way at a time. Raises `EngineError` where they cannot be computed, `BudgetError` where the workers are too
        small.
        """
        observer = observer or Observer()
        if self._repeat == 1:
            return self._stream(inputs, observer)
        return run_in_turn(inputs, self._read, self._run_alone, observer, self._repeat)

    def schedule(self, count: int) -> TaskSchedule:
        """Return the schedule for ``count`` expected inputs, made once for each count. Raises `BudgetError`."""
        if count not in self._schedules:
            workers = len(self._workers)
            input_bytes = sum(self._manifest.tensors[name].nbytes for name in self._manifest.inputs)
            chunk = max(1, min(_CHUNK, _CHUNK_BYTES // max(1, input_bytes), count // (_TASKS_PER_WORKER * workers)))
            chunk = chunk if math.isinf(self._deadline_s) else 1  # no input waits for another of its task
            planned = one_task_plan if self._policy else task_plan
            plan = planned(self._manifest, self._workers, count, chunk)
            is_one_task = len(plan.stages) == 1
            chunk = chunk if is_one_task else 1
            self._schedules[count] = TaskSchedule(
                plan=plan,
                tickets=tuple(
                    self._ticket(f"{count}/{number}", number, stage, chunk) for number, stage in enumerate(plan.stages)
                ),
                chunk=chunk,
                window=_TASKS_PER_WORKER * workers + (0 if is_one_task else 2),
            )
        return self._schedules[count]

    def close(self) -> None:
        """Leave the cluster, and end one that was started for this engine."""
        self._server.close()
        self._cluster.close()

    def _stream(self, inputs: Iterable[EngineInput], observer: Observer) -> Iterator[InferenceResult]:
        source, numbers = iter(inputs), itertools.count()
        schedule = self.schedule(length_hint(source, 1))
        under_way: deque[_Chunk] = deque()
        samples: list[tuple[int, str, InputTensors]] = []
        count, began = 0, time.perf_counter()
        more = True
        while more or under_way:
            while more and len(under_way) < schedule.window:
                following = next(source, None)
                if following is not None:
                    number = next(numbers)
                    try:
                        samples.append((number, following.name, self._read(following)))
                    except InputError as error:
                        yield failed(number, following.name, error)
                more = following is not None
                if samples and (not more or len(samples) == schedule.chunk):
                    under_way.append(self._submit(schedule, samples))
                    count += len(samples)
                    samples = []
            if under_way:
                for result in self._results(under_way.popleft()):
                    observer.run_done()
                    yield result
        if count > 1:
            observer.group_done(GroupTiming(count=count, seconds=time.perf_counter() - began))

    def _run_alone(self, tensors: InputTensors, _again: bool) -> EngineAnswer:
        return only_answer(self._stream(in_memory([tensors]), Observer()))

    def _read(self, source: EngineInput) -> InputTensors:
        """Return an input's tensors; the bundle's budget bounds their size, as on one device."""
        tensors = source.read(self._manifest, lambda: self._manifest.budget_bytes - ROOM_MARGIN_BYTES)
        check_inputs(self._manifest, tensors)
        return tensors

    def _submit(self, schedule: TaskSchedule, samples: list[tuple[int, str, InputTensors]]) -> _Chunk:
        """Give a graph of tasks to Dask; older inputs go first."""
        chunk, stages = uuid.uuid4().hex, schedule.plan.stages
        priority = -samples[0][0]
        client = self._cluster.client
        readers = sum(not set(stage.part.inputs).isdisjoint(self._manifest.inputs) for stage in stages)
        tensors = tuple(each for *_, each in samples)
        inputs = tensors if readers == 1 else client.submit(tasks.given, tensors, key=f"inputs-{chunk}", priority=priority)
        producers: dict[str, Any] = dict.fromkeys(self._manifest.inputs, inputs)
        for stage, ticket in zip(stages, schedule.tickets, strict=True):
            part = stage.part
            to_exits = (tasks.compute_to_exits, ticket, self._policy, self._deadline_s)
            task = to_exits if self._policy else (tasks.compute, ticket)
            future = client.submit(
                *task,
                *{id(producers[name]): producers[name] for name in part.inputs}.values(),
                key=f"{stage.name}-{chunk}",
                resources={"memory": stage.memory_bytes},
                workers=[stage.home] if stage.home else None,
                allow_other_workers=bool(stage.home),
                retries=_RETRIES,
                priority=priority,
            )
            producers.update(dict.fromkeys((output.name for output in part.outputs), future))
        futures = tuple(dict.fromkeys(producers[output.name] for output in self._manifest.outputs))
        named = tuple((number, name) for number, name, _ in samples)
        return _Chunk(inputs=named, began=time.perf_counter(), futures=futures)

    def _results(self, chunk: _Chunk) -> Iterator[InferenceResult]:
        try:
            parts = self._cluster.client.gather(list(chunk.futures))
        except RuntimeFault:
            raise
        except Exception as error:  # Dask's exceptions, and any that its workers raise
            raise EngineError(f"the Dask cluster cannot compute this: {str(error) or type(error).__name__}") from None
        seconds = (time.perf_counter() - chunk.began) / len(chunk.inputs)
        names = {output.name for output in self._manifest.outputs}
        for offset, (number, name) in enumerate(chunk.inputs):
            each = [part[offset] for part in parts]
            if fault := next((part for part in each if isinstance(part, InputError)), None):
                yield failed_run(number, name, fault, seconds)
                continue
            report = None
            if self._policy:
                ((outputs, report),) = each
            else:
                outputs = {key: value for part in each for key, value in part.items() if key in names}
            yield InferenceResult(number=number, name=name, outputs=outputs, error=None, compute_s=seconds, exit=report)

    def _ticket(self, holder: str, number: int, stage: Stage, chunk: int) -> tasks.Ticket:
        """Return a worker's permission to fetch a stage's files, and where they are."""
        document = encode_manifest(stage.part)
        sha256 = hashlib.sha256(document).hexdigest()
        files: dict[str, Path | bytes] = {file.sha256: self._bundle / file.path for file in stage.part.files}
        orders = Orders(
            epoch=0,
            url=self._server.url,
            token=self._server.grant(holder, {sha256: document, **files}),
            authority=self._server.authority,
        )
        order = SubBundleOrder(number=number, sha256=sha256, size_bytes=len(document))
        return tasks.Ticket(orders=orders, order=order, inputs=chunk)
