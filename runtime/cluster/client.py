"""The `hyps.runtime.execution.engine.Engine` of a cluster: sends inputs to a manager through the hub, yields the outputs.

Several jobs are under way at a time, so that the sub-bundles form a pipeline; their outputs come in the order of the inputs.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join, resolve_join
from hyps.runtime.cluster.broker.link import LinkFactory
from hyps.runtime.cluster.protocol.client_messages import Exited
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.submitted_job import SubmittedJob
from hyps.runtime.cluster.submitted_jobs import SubmittedJobs
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import InputError
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
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.exits.answer_report import answered_elsewhere
from hyps.runtime.exits.report import ExitReport

#: Jobs under way at a time.
JOB_WINDOW = 8


class ClusterEngine:
    """An engine that has a cluster compute; of the bundle it needs the manifest alone.

    The hub is named by its address or by a join file, unless the caller has a ``link`` to it. With ``repeat`` each input is
    computed that often, one after the other. With ``exact``, the cluster decodes no result: it waits for each shard. The
    manager ends an input at the exit where ``exit_policy`` does; it goes up with each input. Raises `PolicyError` for one
    that is none.
    """

    def __init__(
        self,
        bundle: Path,
        hub: str | None,
        join_file: Path | None,
        *,
        link: LinkFactory | None = None,
        repeat: int = 1,
        exact: bool = False,
        exit_policy: str = "never",
    ) -> None:
        self._manifest = read_manifest(bundle)
        check_sendable(self._manifest)
        bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        self._repeat, self._has_policy = repeat, exit_policy != "never"
        policy = _sent_policy(exit_policy, self._manifest) if self._has_policy else ("", b"")
        join = Join(hub="") if link else resolve_join(hub, join_file, "--engine")
        name = join.name or f"c{secrets.token_hex(8)}"
        self._jobs = SubmittedJobs(
            self._manifest, bundle_sha256, name, link or partial(Connection, join), exact=exact, policy=policy
        )

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._manifest

    def run(
        self,
        inputs: Iterable[EngineInput],
        observer: Observer | None = None,
        *,
        window: int = JOB_WINDOW,
        job: str | None = None,
    ) -> Iterator[InferenceResult]:
        """Yield results in the order of the inputs; the result of an unreadable input comes at once.

        ``window`` inputs are under way at a time. ``job`` is the identifier of the only input's job, 32 hexadecimal digits.
        Raises `HubError` where nobody computes them.
        """
        observer = observer or Observer()
        if self._repeat == 1:
            return self._stream(inputs, observer, window, job)
        return run_in_turn(inputs, self._read, self._run_alone, observer, self._repeat)

    def close(self) -> None:
        """Leave the hub after everything has been sent."""
        self._jobs.close()

    def cancel(self) -> None:
        """Give up the inputs under way: `run`, which another thread iterates over, raises `HubError`."""
        self._jobs.cancel()

    def _stream(
        self, inputs: Iterable[EngineInput], observer: Observer, window: int, only: str | None
    ) -> Iterator[InferenceResult]:
        numbers, source = itertools.count(), iter(inputs)
        more, count, began = True, 0, time.perf_counter()
        since = time.monotonic()
        try:
            while more or len(self._jobs):
                while more and len(self._jobs) < window and not self._jobs.first_finished():
                    following = next(source, None)
                    if following is None:
                        more = False
                        break
                    number, name = next(numbers), following.name
                    try:
                        tensors = self._read(following)
                    except InputError as error:
                        yield failed(number, name, error)
                        continue
                    count += 1
                    self._jobs.begin(only or secrets.token_hex(16), number, name, tensors)
                if job := self._jobs.next_done(since):
                    observer.run_done()
                    yield self._result(job)
        finally:
            self._jobs.clear()
        if count > 1:
            observer.group_done(GroupTiming(count=count, seconds=time.perf_counter() - began))

    def _run_alone(self, tensors: InputTensors, _again: bool) -> EngineAnswer:
        return only_answer(self._stream(in_memory([tensors]), Observer(), 1, None))

    def _read(self, source: EngineInput) -> InputTensors:
        """Return an input's tensors; the bundle's budget bounds the memory of this process too."""
        tensors = source.read(
            self._manifest, lambda: self._manifest.budget_bytes - memory().resident_bytes - ROOM_MARGIN_BYTES
        )
        check_inputs(self._manifest, tensors)
        return tensors

    def _result(self, job: SubmittedJob) -> InferenceResult:
        seconds = time.monotonic() - job.began
        if job.error:
            return failed_run(job.number, job.name, job.error, seconds)
        outputs = {output.name: job.outputs[output.name] for output in self._manifest.outputs if output.name in job.outputs}
        codes, bound = (job.decoded.codes, job.decoded.error_bound) if job.decoded else ((), 0.0)
        return InferenceResult(
            number=job.number,
            name=job.name,
            outputs=outputs,
            error=None,
            compute_s=seconds,
            decoded=codes,
            error_bound=bound,
            exit=self._report(job.exited, outputs, seconds),
        )

    def _report(self, exited: Exited | None, outputs: Outputs, seconds: float) -> ExitReport | None:
        """Return which exit answered; None where no policy decided, or an operator's did and took the last."""
        if exited:
            return answered_elsewhere(self._manifest, exited.exit, outputs, exited.ended_by, seconds, exited.at)
        if self._has_policy:
            return answered_elsewhere(self._manifest, len(self._manifest.exits), outputs, "network", seconds)
        return None


def _sent_policy(text: str, manifest: Manifest) -> tuple[str, bytes]:
    """Return what a manager reads a policy from: its name and its file's content. Raises `PolicyError`."""
    from hyps.runtime.exits.policy_file import policy_content, policy_of
    from hyps.runtime.exits.policy_header import bundle_exits

    content = policy_content(text)
    policy_of(text, content, bundle_exits(manifest))
    return f"policy{Path(text).suffix}" if content else text, content
