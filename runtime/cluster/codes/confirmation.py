"""Compare the answers of a coded group with each other before one is used, and name the workers of wrong ones."""

from __future__ import annotations

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.counters import CodeCounters
from hyps.runtime.cluster.codes.open_group import OpenGroup, ResultKeeper


class Confirmation:
    """The comparison of answers for one manager."""

    def __init__(self, manifest: Manifest, keeper: ResultKeeper, counters: CodeCounters) -> None:
        self._manifest, self._keeper, self._counters = manifest, keeper, counters

    def is_confirmed(self, job: str, group: OpenGroup, *, others: bool) -> bool:
        """Return whether enough of a group's answers agree: more than are needed.

        If there are no ``others`` who may still answer, as many as are needed must do, but not where a vote was asked for.
        Answers that are wrong are taken out, and their workers named. The job fails if none can be named.
        """
        margin, needed = group.group.margin, len(group.group.shards)
        is_last = not others and (not margin or len(group.answers) + len(group.wrong) == len(group.group.members))
        if len(group.answers) > needed and not self._agree(job, group, is_last=is_last):
            return False
        return len(group.answers) >= group.confirmed_by or (len(group.answers) >= needed and not others and not margin)

    def _agree(self, job: str, group: OpenGroup, *, is_last: bool) -> bool:
        """Return whether the answers agree, without those that are named as wrong."""
        from hyps.runtime.cluster.codes.decoding import disagreeing

        if group.checked == len(group.answers) and (group.agreed or not is_last):
            return group.agreed
        code = group.group.code
        record = self._manifest.tensors[code.shards[0]]
        wrong = disagreeing(code, record, {number: each.data for number, each in group.answers.items()})
        group.checked, group.agreed = len(group.answers) - len(wrong or ()), wrong is not None
        if wrong is None:
            if is_last:
                self._keeper.fail(job, f"the shards of {code.name} contradict each other, and none of them can be named")
            return False
        for number in wrong:
            if not group.exact:  # else another worker computes it
                group.wrong.add(number)
            del group.answers[number]
            name = group.workers[number]
            self._counters.wrong[name] += 1
            self._keeper.wrong(name, f"its answer for {code.tensors[number]} of job {job} fails the parity check")
        return True
