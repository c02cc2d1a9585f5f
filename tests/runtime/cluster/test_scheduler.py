"""Who computes what next: leases, deadlines, losses; without a clock or a network."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.cluster.flow import Graph
from hyps.runtime.cluster.frames import Dropped, Key
from hyps.runtime.cluster.lifecycle import State
from hyps.runtime.cluster.scheduler import MOST_ATTEMPTS, WINDOW, Lease, Scheduler
from hyps.runtime.manifest import Manifest
from tests.runtime.cluster.test_flow import each, scheduled


def chain(manifest: Manifest) -> Graph:
    return each(scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "y")))


def loaded(graph: Graph, homes: dict[int, str], **options: int) -> Scheduler:
    scheduler = Scheduler(graph, lease_s=10, **options)
    scheduler.place(homes)
    for share, worker in homes.items():
        scheduler.loaded(worker, [share])
    return scheduler


def job(number: int) -> str:
    return f"{number:032x}"


def given_out(leases: list[Lease]) -> list[tuple[int, int, str]]:
    return [(int(lease.key.job, 16), lease.key.share, lease.worker) for lease in leases]


def test_a_job_goes_from_worker_to_worker(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    made = scheduler.add(job(1), "c", {"x": b"x"})
    for share, tensor, released in ((0, "a", ("x",)), (1, "b", ("a",)), (2, "y", ("b",))):
        (lease,) = scheduler.tasks(0)
        assert (lease.key.share, scheduler.lives[share].state) == (share, State.INFERRING)
        assert scheduler.tasks(0) == []
        assert scheduler.arrived(lease.key, tensor, b"") == released
        assert scheduler.lives[share].state == State.COMPUTED
    assert made.flow.finished
    assert made.tensors.keys() == {"y"}


def test_a_worker_has_few_inputs_at_a_time(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    for number in range(5):
        scheduler.add(job(number), "c", {"x": b"x"})
    first = scheduler.tasks(0)
    assert given_out(first) == [(number, 0, "w0") for number in range(WINDOW)]
    scheduler.arrived(first[0].key, "a", b"")
    assert given_out(scheduler.tasks(0)) == [(0, 1, "w0")]  # the oldest job goes on first
    assert scheduler.lives[0].state == State.INFERRING  # for the second job


def test_nothing_is_sent_before_it_is_loaded(manifest: Manifest) -> None:
    scheduler = Scheduler(chain(manifest), lease_s=10)
    scheduler.add(job(1), "c", {"x": b"x"})
    assert scheduler.tasks(0) == []
    scheduler.place({0: "w0", 1: "w0", 2: "w0"})
    scheduler.loading("w0", [0])
    scheduler.loaded("w9", [0, 77])
    assert scheduler.tasks(0) == []
    scheduler.loaded("w0", [0])
    assert len(scheduler.tasks(0)) == 1


def test_a_missed_deadline_is_another_attempt_and_the_older_answer_counts(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"}, first_attempt=40)
    scheduler.add(job(1), "c", {"x": b"x"})
    (first,) = scheduler.tasks(0)
    assert first.key.attempt == 40
    assert scheduler.expire(9.9) == []
    assert scheduler.expire(10) == [first]
    (second,) = scheduler.tasks(10)
    assert second.key.attempt == 41
    scheduler.check("w0", first.key)
    assert scheduler.arrived(first.key, "a", b"") == ("x",)
    with pytest.raises(Dropped, match="done already"):
        scheduler.check("w0", second.key)
    assert scheduler.lives[0].state == State.COMPUTED


def test_a_lost_workers_shares_go_to_another(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    scheduler.arrived(scheduler.tasks(0)[0].key, "a", b"")
    scheduler.tasks(0)
    assert scheduler.lost("w1") == [1]
    assert scheduler.lives[1].state == State.LOST
    assert scheduler.tasks(0) == []
    scheduler.place({0: "w0", 1: "w0", 2: "w0"})
    assert [life.state for life in scheduler.lives] == [State.COMPUTED, State.PLACED, State.LOADED]
    scheduler.loaded("w0", [0, 1, 2])
    assert given_out(scheduler.tasks(0)) == [(1, 1, "w0")]  # from the last tensors, not from the start


def test_what_was_never_leased_to_a_worker_is_refused(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (lease,) = scheduler.tasks(0)
    scheduler.check("w0", lease.key)
    future = Key(job=job(1), share=0, attempt=1)
    for worker, key in (("w1", lease.key), ("w0", future), ("w0", Key(job=job(2), share=0, attempt=0))):
        with pytest.raises(Dropped, match="never asked for"):
            scheduler.check(worker, key)


def test_a_job_is_given_up_after_many_attempts(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    for attempt in range(MOST_ATTEMPTS + 1):
        assert scheduler.exhausted() == []
        (lease,) = scheduler.tasks(0)
        assert lease.key.attempt == attempt
        scheduler.failed("w0", lease.key)
    assert scheduler.exhausted() == [(job(1), 0)]
    scheduler.remove(job(1))
    assert (scheduler.leases, scheduler.jobs, scheduler.exhausted()) == ({}, {}, [])


def test_it_goes_on_from_a_journal(manifest: Manifest) -> None:
    """Whether the journal says that a share is done, or only holds its outputs."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"b": b""}, done=[0, 1])
    scheduler.add(job(2), "c", {"x": b"", "a": b""})
    assert given_out(scheduler.tasks(0)) == [(1, 2, "w0"), (2, 1, "w0")]


@settings(max_examples=200)
@given(st.data())
def test_whatever_happens_every_job_ends(data: st.DataObject) -> None:
    """Losses, deadlines, failures and late answers in any order: with one worker left, every job is done in the end."""
    graph = data.draw(st.sampled_from(GRAPHS))
    count = len(graph.runs)
    scheduler = loaded(graph, {share: f"w{share % 2}" for share in range(count)})
    for number in range(3):
        scheduler.add(job(number), "c", {"x": b""})
    out: list[Lease] = []
    now = 0.0
    for _ in range(data.draw(st.integers(0, 30))):
        now += 1
        out += scheduler.tasks(now)
        what = data.draw(st.sampled_from(["answer", "answer", "lose", "expire", "fail", "release"]))
        if what == "answer" and out:
            answer(scheduler, out.pop(data.draw(st.integers(0, len(out) - 1))))
        elif what == "lose":
            worker = data.draw(st.sampled_from(["w0", "w1"]))
            scheduler.lost(worker)
            other = "w1" if worker == "w0" else "w0"
            scheduler.place(dict.fromkeys(range(count), other))
            scheduler.loaded(other, range(count))
        elif what == "expire":
            scheduler.expire(now)
        elif what == "release":
            scheduler.release("w0")
        elif out:
            scheduler.failed(out[0].worker, out[0].key)
    for _ in range(100):
        now += 20
        scheduler.expire(now)
        for lease in scheduler.tasks(now):
            answer(scheduler, lease)
    assert all(each.flow.finished for each in scheduler.jobs.values())
    assert scheduler.leases == {}


GRAPHS: list[Graph] = []


@pytest.fixture(autouse=True, scope="module")
def graphs() -> None:
    """Hypothesis takes no fixtures of a function's life."""
    template = Graph.__new__(Graph)
    for inputs, outputs in (
        ([("x",), ("a",), ("b",)], [("a",), ("b",), ("y",)]),
        ([("x",), ("a",), ("a",), ("s", "t")], [("a",), ("s",), ("t",), ("y",)]),
        ([("x",), ("a",), ("a", "b")], [("a", "b"), (), ("y",)]),
    ):
        template = Graph.__new__(Graph)
        template.inputs, template.outputs = tuple(inputs), tuple(outputs)
        template.results, template.runs = ("y",), tuple(range(i, i + 1) for i in range(len(inputs)))
        GRAPHS.append(template)


def answer(scheduler: Scheduler, lease: Lease) -> None:
    try:
        scheduler.check(lease.worker, lease.key)
    except Dropped:
        return
    for tensor in scheduler.graph.outputs[lease.key.share]:
        scheduler.arrived(lease.key, tensor, b"")
