"""The `hyps.runtime.execution.engine.Engine` of a Dask cluster: steps are its tasks, tensors what travels between its workers.

Dask does what it is there for: it gives tasks to workers that have the memory (the resource ``memory``, in bytes), moves
tensors between them, runs again what a lost worker had, lets workers come and go, and shows all that on its dashboard. Who
can speak to its scheduler can run programs on its workers: keep it in a network of your own, or use TLS
(``dask+tls://``, with certificates as in Dask's configuration, ``distributed.comm.tls``).
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address
from hyps.runtime.dask import tasks
from hyps.runtime.dask.connect import Connected, connect
from hyps.runtime.dask.task_plan import Stage, task_plan
from hyps.runtime.errors import EngineError, InputError, RuntimeFault
from hyps.runtime.execution.batch import StreamResult
from hyps.runtime.execution.executor import Outputs, StepProfile, check_inputs

#: Inputs of one task: a few, so that weights are read once for them; fewer where they are large.
_CHUNK, _CHUNK_BYTES = 16, 8_000_000
#: Tasks under way for each worker: one that runs and one that waits.
_AHEAD = 2
_RETRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Inputs that are computed together: their numbers, when they were given away, and what they will become."""

    first: int
    count: int
    began: float
    futures: tuple[Any, ...]


class DaskEngine:
    """Computes a bundle's outputs by Dask: ``url`` is dask://HOST:PORT, dask+tls://HOST:PORT or dask://local.

    ``count`` says how many inputs are expected. Workers fetch files from this process, once each.
    Raises `EngineError` where there is no such cluster, `BudgetError` where its workers are too small.
    """

    #: Nothing is kept in files here.
    spilled_bytes = 0

    def __init__(self, bundle: Path, url: str, count: int = 1) -> None:
        self._manifest = read_manifest(bundle)
        check_files(bundle, self._manifest)
        self._cluster: Connected = connect(url)
        try:
            workers = self._cluster.memory_bytes()
            input_bytes = sum(self._manifest.tensors[name].nbytes for name in self._manifest.inputs)
            chunk = max(1, min(_CHUNK, _CHUNK_BYTES // max(1, input_bytes), count // (_AHEAD * len(workers))))
            self.work = task_plan(self._manifest, workers, count, chunk)
            self._chunk = chunk if len(self.work.stages) == 1 else 1
            self._window = _AHEAD * len(workers) if len(self.work.stages) == 1 else _AHEAD * len(workers) + 2
            self._server = FileServer(self._address(), tls=self._cluster.tls)
            self._tickets = [self._ticket(bundle, number, stage) for number, stage in enumerate(self.work.stages)]
        except BaseException:
            self._cluster.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What it runs."""
        return self._manifest

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        watch: Callable[[StepProfile], None] | None = None,
        *,
        again: bool = False,
    ) -> Outputs:
        """The model's outputs by name. Raises `InputError` for wrong inputs, `EngineError` where they cannot be computed."""
        (done,) = self.stream([inputs])
        if done.error:
            raise done.error
        return done.outputs

    def stream(self, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[StreamResult]:
        """What becomes of each of ``inputs``, in their order; few are under way at a time, however many there are.

        Raises `InputError` for wrong inputs, `EngineError` where they cannot be computed.
        """
        source, number = iter(inputs), 0
        batches: deque[_Batch] = deque()
        while True:
            while len(batches) < self._window and (samples := list(islice(source, self._chunk))):
                for sample in samples:
                    check_inputs(self._manifest, sample)
                batches.append(self._submit(number, samples))
                number += len(samples)
            if not batches:
                return
            yield from self._results(batches.popleft())

    def room_bytes(self) -> int:
        """The budget is that of workers; here an input may be as large as it is on one device."""
        return self._manifest.budget_bytes

    def make_room(self) -> None:
        """There is nothing to give back."""

    def close(self) -> None:
        """Let go of the cluster, and of one that was started for this."""
        self._server.close()
        self._cluster.close()

    def _submit(self, first: int, samples: list[Mapping[str, NDArray[Any]]]) -> _Batch:
        """Give a graph of tasks to Dask; older inputs go first."""
        batch = uuid.uuid4().hex
        client = self._cluster.client
        readers = sum(not set(stage.part.inputs).isdisjoint(self._manifest.inputs) for stage in self.work.stages)
        given = tuple(samples)
        inputs = given if readers == 1 else client.submit(tasks.given, given, key=f"inputs-{batch}", priority=-first)
        made: dict[str, Any] = dict.fromkeys(self._manifest.inputs, inputs)
        for stage, ticket in zip(self.work.stages, self._tickets, strict=True):
            part = stage.part
            future = client.submit(
                tasks.compute,
                ticket,
                *{id(made[name]): made[name] for name in part.inputs}.values(),
                key=f"{stage.name}-{batch}",
                resources={"memory": stage.memory_bytes},
                workers=[stage.home] if stage.home else None,
                allow_other_workers=bool(stage.home),
                retries=_RETRIES,
                priority=-first,
            )
            made.update(dict.fromkeys((output.name for output in part.outputs), future))
        futures = tuple(dict.fromkeys(made[output.name] for output in self._manifest.outputs))
        return _Batch(first=first, count=len(samples), began=time.perf_counter(), futures=futures)

    def _results(self, batch: _Batch) -> Iterator[StreamResult]:
        try:
            parts = self._cluster.client.gather(list(batch.futures))
        except RuntimeFault:
            raise
        except Exception as error:  # Dask's own, and those of its workers' Python
            raise EngineError(f"the Dask cluster cannot compute this: {str(error) or type(error).__name__}") from None
        seconds = (time.perf_counter() - batch.began) / batch.count
        names = {output.name for output in self._manifest.outputs}
        for offset in range(batch.count):
            each = [part[offset] for part in parts]
            fault = next((part for part in each if isinstance(part, InputError)), None)
            outputs = {} if fault else {name: value for part in each for name, value in part.items() if name in names}
            yield StreamResult(number=batch.first + offset, outputs=outputs, error=fault, compute_s=seconds)

    def _address(self) -> str:
        return local_address(self._cluster.host, self._cluster.port)

    def _ticket(self, bundle: Path, number: int, stage: Stage) -> tasks.Ticket:
        """Let workers fetch a stage's files, and say how."""
        document = encode_manifest(stage.part)
        sha256 = hashlib.sha256(document).hexdigest()
        shelf: dict[str, Path | bytes] = {sha256: document, **{file.sha256: bundle / file.path for file in stage.part.files}}
        orders = Orders(
            epoch=0,
            url=self._server.url,
            token=self._server.grant(f"stage {number}", shelf),
            authority=self._server.authority,
        )
        order = SubBundleOrder(number=number, sha256=sha256, size_bytes=len(document))
        return tasks.Ticket(orders=orders, order=order, inputs=self._chunk)
