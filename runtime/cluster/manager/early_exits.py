"""Decide for a manager's jobs at early exits: go on, end with the answer so far, or offload the rest to the tier above.

Seifeddine, section 3.3.1: the actions are the same on each tier, but for the highest, where offloading is not an option. A
job whose rest is above keeps its tensors here: if no answer comes, the workers compute it, and after a restart they do, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hyps.runtime.bundle.exits import rest_inputs, rest_outputs
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.hub_tier import HubTier, hub_or_join
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.errors import HubError
from hyps.runtime.execution.session import memory_of
from hyps.runtime.exits.policies import ExitPolicy, NeverExit, offloading_exits
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits
from hyps.runtime.exits.state import ExitAction, ExitState, class_probabilities
from hyps.runtime.exits.tier import NextTier, RestAnswer

#: The most rests that are above at a time, and the seconds that one may take.
_MOST_ABOVE, _WITHIN_S = 8, 60.0
_log = logging.getLogger(__name__)


class JobEnder(Protocol):
    """Who ends jobs; see `hyps.runtime.cluster.manager.results.ResultCollector`."""

    def end_at_exit(self, job: Job, at: str = "") -> None:
        """End a job with the outputs that are there; ``at`` are the tiers that made the last of them."""
        ...

    def fell_back(self) -> None:
        """Count a rest that went up, and that workers here compute after all."""
        ...


class EarlyExits:
    """What decides at the exits of one manager's jobs; use it on the manager's thread, on which ``call_soon`` calls.

    ``policy`` is the manager's; a client's own comes before it, until the manager is started again.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: ExitPolicy,
        journal: Journal,
        ender: JobEnder,
        call_soon: Callable[[Callable[[], None]], None],
        tier: NextTier | None = None,
    ) -> None:
        self._manifest, self._policy, self._journal, self._ender = manifest, policy, journal, ender
        self._tier, self._call_soon = tier, call_soon
        self._numbers = {each.after_step + 1: number for number, each in enumerate(manifest.exits[:-1], start=1)}
        self._above: set[str] = set()
        self._policies: dict[str, ExitPolicy] = {}
        self._threads = ThreadPoolExecutor(_MOST_ABOVE, "rest above") if tier else None

    def decide_by(self, job: str, policy: ExitPolicy) -> None:
        """Have a client's policy decide at the exits of its job."""
        self._policies[job] = policy

    def forget(self, job: str) -> None:
        """Forget the policy of a job that has ended."""
        self._policies.pop(job, None)

    def ends(self, job: str, run: range) -> bool:
        """Return whether a job may end after a run of steps: what comes after waits for the decision."""
        return run.stop in self._numbers and not isinstance(self._policies.get(job, self._policy), NeverExit)

    def reached(self, scheduler: Scheduler, job: Job, sub_bundle: int) -> None:
        """Decide for a job that has computed a sub-bundle."""
        stop = scheduler.graph.runs[sub_bundle].stop
        number = self._numbers.get(stop)
        before = scheduler.graph.before(job.flow.numbers, stop)
        policy = self._policies.get(job.job, self._policy)
        if number is None or isinstance(policy, NeverExit):
            return
        if before is None or not job.flow.done.issuperset(before):
            return
        try:
            action = policy.decide(self._state(job, number))
            if action is ExitAction.EXIT:
                self._ender.end_at_exit(job)
            elif action is ExitAction.OFFLOAD and self._tier and self._tier.link(number) and len(self._above) < _MOST_ABOVE:
                self._offload(self._tier, scheduler, job, number)
        except DamagedTensor:
            return  # the job fails when a worker is to be sent it

    def close(self) -> None:
        """Give back the link to the tier above."""
        if self._tier and self._threads:
            self._tier.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _state(self, job: Job, number: int) -> ExitState:
        output = self._manifest.exits[number - 1].output
        (known,) = (each for each in self._manifest.outputs if each.name == output)
        link = self._tier.link(number) if self._tier else None
        return ExitState(
            probabilities=class_probabilities(self._value(job, output), are_probabilities=known.probabilities),
            exit=number - 1,
            seconds=0.0,
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s if link else 0.0,
            round_trip_s=link.round_trip_s if link else 0.0,
        )

    def _value(self, job: Job, name: str) -> Any:
        return to_value(self._journal.read(job.tensors[name]), self._manifest.tensors[name])

    def _offload(self, tier: NextTier, scheduler: Scheduler, job: Job, number: int) -> None:
        rest = {name: self._value(job, name) for name in rest_inputs(self._manifest, number)}
        left = [each for each in job.flow.numbers if each not in job.flow.done]
        scheduler.skip(job, left)
        self._above.add(job.job)

        def compute() -> None:
            answer = tier.complete(number, rest, _WITHIN_S)
            self._call_soon(lambda: self._answered(scheduler, job, left, number, answer))

        assert self._threads
        self._threads.submit(compute)

    def _answered(self, scheduler: Scheduler, job: Job, left: list[int], number: int, answer: RestAnswer) -> None:
        """Take what the tier above has made; if that is nothing, have the workers go on."""
        self._above.discard(job.job)
        if scheduler.jobs.get(job.job) is not job:
            return  # it was cancelled
        if answer.problem:
            _log.warning("the rest of job %s is computed here: %s", job.job, answer.problem)
            self._ender.fell_back()
            scheduler.need_again(job, left)
            return
        for name in rest_outputs(self._manifest, number, answer.exit):
            self._keep(job, name, answer.outputs)
        self._ender.end_at_exit(job, answer.at)

    def _keep(self, job: Job, name: str, outputs: Mapping[str, Any]) -> None:
        data = bytes(memory_of(np.ascontiguousarray(outputs[name])))
        job.tensors[name] = digest_of(data)
        self._journal.keep(job.job, name, job.tensors[name], data)


def early_exits(
    manifest: Manifest,
    bundle: Path,
    options: ClusterOptions,
    journal: Journal,
    ender: JobEnder,
    call_soon: Callable[[Callable[[], None]], None],
) -> EarlyExits | None:
    """Return what decides at a bundle's exits by an operator's options, None without a policy. Raises `RuntimeFault`."""
    if options.exit_policy == "never":
        if options.offload:
            raise HubError("--offload needs a policy that offloads: give --exit-policy FILE.json or FILE.onnx")
        return None
    policy = read_policy(options.exit_policy, bundle_exits(manifest))
    places = offloading_exits(policy, len(manifest.exits))
    tier = HubTier(bundle, *hub_or_join(options.offload), exits=places) if options.offload else None
    return EarlyExits(manifest, policy, journal, ender, call_soon, tier)
