"""Collect the answers of coded groups: take the first k of k + R, decode what is lost or late, and find wrong answers.

A group with one parity shard hands each shard on as it comes. One with more holds its answers back until k + 1 agree, or
nobody else can answer: so a wrong answer is found before anything is computed from it, and with another answer it is named.
A group is *settled* once all its shards are there: the work of its other workers is withdrawn, and what they answer all the
same is dropped.
"""

from __future__ import annotations

import math

from hyps.runtime.bundle.coded_groups import CodedGroup
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.confirmation import Confirmation
from hyps.runtime.cluster.codes.counters import CodeCounters
from hyps.runtime.cluster.codes.open_group import OpenGroup, ResultKeeper
from hyps.runtime.cluster.codes.options import Hedge
from hyps.runtime.cluster.codes.stragglers import StragglerThreshold
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.decoded_note import DecodedNote, encode_note
from hyps.runtime.cluster.protocol.frames import Key, digest_of
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.errors import InputError

#: The most bytes of answers that wait for others of their groups.
HELD_BYTES = 256 << 20


class CodedResults:
    """The coded groups of one manager's jobs. Times are seconds of the caller's clock; use it on the manager's thread."""

    def __init__(
        self,
        manifest: Manifest,
        journal: Journal,
        keeper: ResultKeeper,
        counters: CodeCounters,
        hedge: Hedge = "late",
        straggler_s: float | None = None,
    ) -> None:
        self._manifest, self._journal, self._keeper, self._counters = manifest, journal, keeper, counters
        self._confirmation = Confirmation(manifest, keeper, counters)
        self._hedge = hedge
        self._open: dict[tuple[str, str], OpenGroup] = {}
        self._thresholds = {code.name: StragglerThreshold(straggler_s) for code in manifest.codes}

    def sent(self, scheduler: Scheduler, lease: Lease, now: float) -> None:
        """Note that a worker is sent inputs: its group's clock starts."""
        job = scheduler.jobs.get(lease.key.job)
        if job and (found := scheduler.graph.member(job.flow.numbers, lease.key.sub_bundle)):
            self._group(job, found[0], now)

    def takes(self, scheduler: Scheduler, key: Key) -> bool:
        """Return whether an answer is a coded group's, for `arrived`."""
        job = scheduler.jobs.get(key.job)
        return job is not None and scheduler.graph.member(job.flow.numbers, key.sub_bundle) is not None

    def passes(self, scheduler: Scheduler, key: Key) -> bool:
        """Return whether an answer's first bytes may be forwarded: not parity, nor what is compared first."""
        job = scheduler.jobs.get(key.job)
        found = scheduler.graph.member(job.flow.numbers, key.sub_bundle) if job else None
        return found is None or (len(found[0].parity) == 1 and found[1] < len(found[0].shards))

    def arrived(self, scheduler: Scheduler, worker: str, received: ReceivedTensor, now: float) -> None:
        """Take a worker's answer."""
        key = received.key
        scheduler.answered(key)
        job = scheduler.jobs[key.job]
        found = scheduler.graph.member(job.flow.numbers, key.sub_bundle)
        assert found
        group, number = found
        if key.sub_bundle in job.flow.done:
            return  # another answer came first, or it was decoded
        open_group = self._group(job, group, now)
        if number in open_group.answers or number in open_group.wrong:
            return
        open_group.answers[number], open_group.workers[number] = received, worker
        if not open_group.holds_back and number < len(group.shards):
            self._keeper.keep(worker, received)
        else:
            self._keeper.computed(worker, key)
        self._decide(scheduler, job, open_group, now)
        self._make_room(scheduler, open_group)

    def settle(self, scheduler: Scheduler, now: float) -> None:
        """Decode what has waited long enough, or has nobody left to wait for."""
        for place, group in [*self._open.items()]:
            if group.decodable_at is None:
                continue
            if job := scheduler.jobs.get(place[0]):
                self._decide(scheduler, job, group, now)
            else:
                self._open.pop(place, None)

    def due_s(self, now: float) -> float:
        """Return the seconds until `settle` may have something to do."""
        waiting = (group for group in self._open.values() if group.decodable_at is not None)
        return max(0.0, min((self._due(group) - now for group in waiting), default=math.inf))

    def forget(self, job: str) -> None:
        """Drop a job's groups."""
        for place in [place for place in self._open if place[0] == job]:
            del self._open[place]

    def _group(self, job: Job, group: CodedGroup, now: float) -> OpenGroup:
        """Return a job's group; a new one has what the journal kept of an earlier start of the manager."""
        place = job.job, group.code.name
        if place not in self._open:
            self._open[place] = OpenGroup(group=group, began=now, exact=job.exact)
            for number, name in enumerate(group.code.shards):
                if name in job.tensors:
                    try:
                        data = bytearray(self._journal.read(job.tensors[name]))
                    except DamagedTensor:
                        continue  # the job fails when a worker is to be sent it
                    key = Key(job=job.job, sub_bundle=group.members[number], attempt=0)
                    self._open[place].answers[number] = ReceivedTensor(
                        key=key, tensor=name, record=self._manifest.tensors[name], digest=job.tensors[name], data=data
                    )
        return self._open[place]

    def _make_room(self, scheduler: Scheduler, kept: OpenGroup) -> None:
        """Drop the answers of the newest groups if all are too large for the memory; their workers are asked again."""
        held = sum(len(each.data) for group in self._open.values() for each in group.answers.values())
        for place in [*reversed(self._open)]:
            group = self._open[place]
            if held <= HELD_BYTES or group is kept or not group.answers:
                continue
            held -= sum(len(each.data) for each in group.answers.values())
            del self._open[place]
            if job := scheduler.jobs.get(place[0]):
                scheduler.ask_again_for(job, group.group.members)

    def _due(self, group: OpenGroup) -> float:
        is_disputed = group.checked == len(group.answers) and not group.agreed
        if group.holds_back and (is_disputed or len(group.answers) < group.confirmed_by):
            return math.inf  # only another answer helps, or the loss of its worker
        if group.exact and group.missing:
            return math.inf
        if self._hedge != "late":
            return 0.0 if self._hedge == "always" else math.inf
        return group.began + self._thresholds[group.group.code.name].seconds

    def _decide(self, scheduler: Scheduler, job: Job, group: OpenGroup, now: float) -> None:
        """Hand on, decode, wait or reject, by the answers that are there."""
        needed = len(group.group.shards)
        if job.job not in scheduler.jobs:
            return
        if not group.holds_back and not group.missing:
            self._settle(scheduler, job, group, now)
            return
        if len(group.answers) < needed:
            return
        if group.decodable_at is None:
            group.decodable_at = now
        expected = [number for number in range(len(group.group.members)) if self._may_answer(scheduler, job, group, number)]
        if group.holds_back and not self._confirmation.is_confirmed(job.job, group, others=bool(expected)):
            return
        if job.exact and group.missing:
            return
        late = [number for number in group.missing if number in expected]
        if group.missing and late and now < self._due(group):
            return
        self._decode(job, group, scheduler, late)
        if job.job in scheduler.jobs:
            self._settle(scheduler, job, group, now)

    def _may_answer(self, scheduler: Scheduler, job: Job, group: OpenGroup, number: int) -> bool:
        """Return whether a worker is computing a member, or will soon: not if it is behind with what was decoded already."""
        if number in group.answers or number in group.wrong:
            return False
        sub_bundle = group.group.members[number]
        homes = [home for home in scheduler.replicas.homes[sub_bundle] if scheduler.replicas.can_infer(sub_bundle, home)]
        if self._hedge == "never":
            return bool(homes)
        return any(home in job.asked[sub_bundle] or not scheduler.is_behind(home, sub_bundle) for home in homes)

    def _decode(self, job: Job, group: OpenGroup, scheduler: Scheduler, late: list[int]) -> None:
        """Hand on the answers that were held back, and the missing shards, decoded."""
        missing, code = group.missing, group.group.code
        if missing:
            from hyps.runtime.cluster.codes.decoding import decode

            record = self._manifest.tensors[code.shards[0]]
            try:
                decoded = decode(code, record, {number: each.data for number, each in group.answers.items()}, missing)
            except InputError as fault:
                self._keeper.fail(job.job, str(fault))
                return
            self._journal.note(job.job, encode_note(self._noted(job, group)))
        if group.holds_back:
            for number in sorted(group.answers):
                if number < len(group.group.shards):
                    self._keeper.keep(None, group.answers[number])
        for number in missing:
            key = Key(job=job.job, sub_bundle=group.group.members[number], attempt=0)  # attempts of workers are larger
            data = decoded[number]
            self._keeper.keep(
                None,
                ReceivedTensor(key=key, tensor=code.shards[number], record=record, digest=digest_of(data), data=data),
            )
        if missing:
            homes = [home for number in late for home in scheduler.replicas.homes[group.group.members[number]]]
            self._counters.decoded(code.name, homes)

    def _noted(self, job: Job, group: OpenGroup) -> DecodedNote:
        """Return what is to be said of a job's result after this group, too, is decoded."""
        known = job.decoded or DecodedNote(codes=(), error_bound=0.0)
        code = group.group.code
        job.decoded = DecodedNote(
            codes=tuple(dict.fromkeys((*known.codes, code.name))), error_bound=max(known.error_bound, code.error_bound)
        )
        return job.decoded

    def _settle(self, scheduler: Scheduler, job: Job, group: OpenGroup, now: float) -> None:
        """End a group: its workers' answers are not needed any more."""
        at = group.decodable_at if group.decodable_at is not None else now
        self._thresholds[group.group.code.name].learn(at - group.began)
        for lease in scheduler.skip(job, group.group.members):
            self._keeper.withdraw(lease)
        for member in group.group.parity:
            self._journal.complete(job.job, member, ())
        self._open.pop((job.job, group.group.code.name), None)
