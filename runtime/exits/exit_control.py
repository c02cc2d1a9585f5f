"""Decide at every exit of a bundle whether the inference ends there: by a policy, a deadline and an energy limit."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyps.runtime.bundle.exits import LIKELY_PART, rest_inputs, step_reach
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.exits.exit_run import ExitRun
from hyps.runtime.exits.forecast import Forecast
from hyps.runtime.exits.policies import ExitPolicy, offloading_exits
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits
from hyps.runtime.exits.tier import NextTier, RestAnswer

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: The inferences that a bundle's rates count as much as.
_PRIOR = 8


class ExitControl:
    """What decides at the exits of one bundle, and learns from each inference what the next one will take.

    ``deadline_s`` and ``joules_limit`` are of each inference, infinite where there is none. ``joules`` returns the device's
    energy since some moment, by its ``energy_source``. An inference ends at the last exit from which no later one would be
    reached within both. ``tier`` computes the rest of those that the policy offloads.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: ExitPolicy,
        *,
        deadline_s: float = math.inf,
        joules_limit: float = math.inf,
        joules: Callable[[], float] = lambda: 0.0,
        energy_source: str = "",
        tier: NextTier | None = None,
    ) -> None:
        self.policy, self.deadline_s, self.joules_limit, self.joules = policy, deadline_s, joules_limit, joules
        self.tier, self.tensors = tier, manifest.tensors
        self.energy_source = energy_source if joules_limit < math.inf else ""
        self.rests = [rest_inputs(manifest, number) for number in range(1, len(manifest.exits))]
        self.exits, self.manifest = manifest.exits, manifest
        self.outputs = frozenset(output.name for output in manifest.outputs)
        #: See `overlap`.
        self.copied: Callable[[Any], Any] = lambda value: value
        self._free = threading.Semaphore(0)
        self._threads: ThreadPoolExecutor | None = None
        #: The outputs of the exits by the indices of the steps after which they are.
        self.places: Mapping[int, str] = {each.after_step: each.output for each in self.exits}
        self.numbers = {each.after_step: number for number, each in enumerate(self.exits)}
        known = {output.name: output.probabilities for output in manifest.outputs}
        self.are_probabilities = tuple(known[each.output] for each in self.exits)
        self.steps = manifest.steps
        ends = [0, *(each.after_step + 1 for each in self.exits)]
        stretches = [self.steps[start:stop] for start, stop in itertools.pairwise(ends)]
        work = [sum(step.multiply_adds for step in each) for each in stretches]
        nbytes = [sum(step.weights_file_bytes for step in each) for each in stretches]
        self.seconds, self.energy = Forecast(work, nbytes), Forecast(work, nbytes)
        #: How many inferences ended at each exit here, those included whose rest went up; and how many went up.
        self.counts = [0] * len(self.exits)
        self.offloads = 0

    @property
    def early(self) -> Mapping[int, bool]:
        """The steps after which an inference may end before the network does, and whether it is likely to.

        Likely is what the bundle's rates say, and more and more what inferences did.
        """
        reach = [*step_reach(self.exits, len(self.steps)), 0.0]
        found = {}
        for number, each in enumerate(self.exits[:-1]):
            expected = each.rate / reach[each.after_step] if reach[each.after_step] > 0 else 0.0
            ended, reached = self.counts[number] + _PRIOR * expected, sum(self.counts[number:]) + _PRIOR
            found[each.after_step] = ended >= LIKELY_PART * reached
        return found

    def close(self) -> None:
        """Give back the link to the tier above."""
        if self.tier:
            self.tier.close()
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def begin(self, *, leaves: bool = False) -> ExitRun:
        """Return the run of one inference, which begins now; with ``leaves``, as `ExitRun` says, after `overlap`."""
        return ExitRun(self, leaves=leaves)

    def overlap(self, most: int, copied: Callable[[Any], Any]) -> None:
        """Let the caller compute other inferences while up to ``most`` rests are away; ``copied`` copies a tensor."""
        from concurrent.futures import ThreadPoolExecutor  # a device that offloads nothing has no memory for it

        self.copied = copied
        self._free, self._threads = threading.Semaphore(most), ThreadPoolExecutor(most, "rest away")

    @property
    def is_overlapped(self) -> bool:
        """Whether `overlap` was called."""
        return self._threads is not None

    @property
    def may_overlap(self) -> bool:
        """Whether rests may be away while others compute: a deadline is kept for one inference at a time."""
        return self.tier is not None and math.isinf(self.deadline_s)

    def send(self, after_exit: int, rest: Mapping[str, Any], within_s: float) -> Future[RestAnswer]:
        """Send a rest up, once fewer than the most are away, and return its future answer."""
        assert self.tier
        assert self._threads
        free = self._free
        free.acquire()
        sent = self._threads.submit(self.tier.complete, after_exit, rest, within_s)
        sent.add_done_callback(lambda _: free.release())
        return sent


def exit_control(
    manifest: Manifest,
    policy: str,
    *,
    deadline_s: float = math.inf,
    joules_limit: float = math.inf,
    joules: Callable[[], float] = lambda: 0.0,
    energy_source: str = "",
    tier: Callable[[Sequence[int]], NextTier] | None = None,
) -> ExitControl | None:
    """Return what decides at a bundle's exits by the policy of this name or file; None for ``never`` without a limit.

    ``tier`` opens the link to the tier above, once the policy is read, by the exits behind which that may offload.

    Raises `PolicyError` for a policy that is none, and for a policy or a limit where the bundle has no exits.
    """
    if policy == "never" and math.isinf(deadline_s) and math.isinf(joules_limit):
        return None
    found = read_policy(policy, bundle_exits(manifest))
    above = tier(offloading_exits(found, len(manifest.exits))) if tier else None
    return ExitControl(
        manifest,
        found,
        deadline_s=deadline_s,
        joules_limit=joules_limit,
        joules=joules,
        energy_source=energy_source,
        tier=above,
    )
