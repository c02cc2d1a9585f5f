"""Test the trace of jobs: who may report times, and which jobs are remembered."""

from __future__ import annotations

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed
from hyps.runtime.cluster.scheduling.trace import MAX_TRACED_JOBS, Trace

KEY = Key(job="0" * 32, sub_bundle=1, attempt=4)


def test_a_span_from_end_to_end() -> None:
    trace = Trace()
    trace.accepted(KEY.job)
    trace.sent(KEY, "a")
    trace.timed("a", Timed(key=KEY, compute_s=0.5, steps_s=(0.2, 0.3)))
    trace.begun(KEY)
    trace.begun(KEY)
    trace.done(KEY)
    (span,) = trace.of(KEY.job)
    assert (span.sub_bundle, span.worker, span.compute_s, span.steps_s) == (1, "a", 0.5, (0.2, 0.3))
    assert span.begun_s is not None
    assert span.done_s is not None
    assert 0 <= span.sent_s <= span.begun_s <= span.done_s


def test_times_of_another_worker_are_ignored() -> None:
    trace = Trace()
    trace.accepted(KEY.job)
    trace.sent(KEY, "a")
    trace.timed("b", Timed(key=KEY, compute_s=0.5))
    assert trace.of(KEY.job)[0].compute_s is None


def test_unknown_jobs_are_ignored() -> None:
    trace = Trace()
    trace.sent(KEY, "a")
    trace.begun(KEY)
    trace.done(KEY)
    trace.timed("a", Timed(key=KEY, compute_s=0.5))
    assert trace.of(KEY.job) == []


def test_old_jobs_are_forgotten() -> None:
    trace = Trace()
    for number in range(MAX_TRACED_JOBS + 5):
        trace.accepted(f"{number:032x}")
        trace.sent(Key(job=f"{number:032x}", sub_bundle=0, attempt=0), "a")
    assert trace.of(f"{4:032x}") == []
    assert len(trace.of(f"{5:032x}")) == 1
