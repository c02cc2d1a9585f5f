"""Test the scheduler's leases, deadlines and losses, without a clock or a network."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.scheduling.dispatch import LEASE_WINDOW, LEASED_BYTES, MAX_BATCH
from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.lifecycle import State
from hyps.runtime.cluster.scheduling.scheduler import MAX_FAILURES, Scheduler
from tests.runtime.cluster.scheduling.test_flow import one_step_each, scheduled


def chain(manifest: Manifest) -> SubBundleGraph:
    return one_step_each(scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "y")))


def loaded(graph: SubBundleGraph, homes: dict[int, str], **options: int) -> Scheduler:
    """Return a scheduler whose sub-bundles are loaded by these workers, whose names are separated by spaces."""
    scheduler = Scheduler(graph, lease_s=10, **options)
    hold(scheduler, homes)
    return scheduler


def hold(scheduler: Scheduler, homes: dict[int, str]) -> None:
    scheduler.replicas.place({sub_bundle: workers.split() for sub_bundle, workers in homes.items()})
    for sub_bundle, workers in homes.items():
        for worker in workers.split():
            scheduler.replicas.loaded(worker, [sub_bundle])


def job(number: int) -> str:
    return f"{number:032x}"


def given_out(leases: list[Lease]) -> list[tuple[int, int, str]]:
    return [(int(lease.key.job, 16), lease.key.sub_bundle, lease.worker) for lease in leases]


def test_a_job_goes_from_worker_to_worker(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    made = scheduler.add(job(1), "c", {"x": b"x"})
    for sub_bundle, tensor, released in ((0, "a", ("x",)), (1, "b", ("a",)), (2, "y", ("b",))):
        (lease,) = scheduler.tasks(0)
        assert (lease.key.sub_bundle, scheduler.replicas.state(sub_bundle, lease.worker)) == (sub_bundle, State.INFERRING)
        assert scheduler.tasks(0) == []
        assert scheduler.arrived(lease.key, tensor, b"") == released
        assert scheduler.replicas.state(sub_bundle, lease.worker) == State.COMPUTED
    assert made.flow.finished
    assert made.tensors.keys() == {"y"}


def test_a_worker_has_few_inputs_at_a_time(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    for number in range(5):
        scheduler.add(job(number), "c", {"x": b"x"})
    first = scheduler.tasks(0)
    assert given_out(first) == [(number, 0, "w0") for number in range(LEASE_WINDOW)]
    scheduler.arrived(first[0].key, "a", b"")
    assert given_out(scheduler.tasks(0)) == [(0, 1, "w0")]  # the oldest job goes on first
    assert scheduler.replicas.state(0, "w0") == State.INFERRING  # for the second job


def test_the_bytes_of_all_leases_are_bounded(manifest: Manifest) -> None:
    """One lease of any size runs if it is alone; else the manager and the hub would have to hold several such."""
    graph = chain(manifest)
    graph.moved_bytes = dict.fromkeys(range(3), LEASED_BYTES * 3 // 4)
    scheduler = loaded(graph, {0: "w0", 1: "w1", 2: "w2"})
    for number in range(2):
        scheduler.add(job(number), "c", {"x": b""})
    (first,) = scheduler.tasks(0)
    assert scheduler.tasks(0) == []
    answer(scheduler, first)
    (second,) = scheduler.tasks(0)
    assert second.key != first.key


def test_nothing_is_sent_before_it_is_loaded(manifest: Manifest) -> None:
    scheduler = Scheduler(chain(manifest), lease_s=10)
    scheduler.add(job(1), "c", {"x": b"x"})
    assert scheduler.tasks(0) == []
    scheduler.replicas.place({0: ["w0"], 1: ["w0"], 2: ["w0"]})
    scheduler.replicas.loading("w0", [0])
    scheduler.replicas.loaded("w9", [0, 77])
    assert scheduler.tasks(0) == []
    scheduler.replicas.loaded("w0", [0])
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
    with pytest.raises(Rejection, match="done already"):
        scheduler.check("w0", second.key)
    assert scheduler.replicas.state(0, "w0") == State.COMPUTED


def test_a_lost_workers_sub_bundles_go_to_another(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    scheduler.arrived(scheduler.tasks(0)[0].key, "a", b"")
    scheduler.tasks(0)
    assert scheduler.lost("w1") == [1]
    assert scheduler.replicas.state(1, "w1") == State.LOST
    assert scheduler.tasks(0) == []
    scheduler.replicas.place({sub_bundle: ["w0"] for sub_bundle in range(3)})
    assert [scheduler.replicas.state(sub_bundle, "w0") for sub_bundle in range(3)] == [
        State.COMPUTED,
        State.PLACED,
        State.LOADED,
    ]
    scheduler.replicas.loaded("w0", [0, 1, 2])
    assert given_out(scheduler.tasks(0)) == [(1, 1, "w0")]  # from the last tensors, not from the start


def test_what_was_never_leased_to_a_worker_is_refused(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (lease,) = scheduler.tasks(0)
    scheduler.check("w0", lease.key)
    future = Key(job=job(1), sub_bundle=0, attempt=1)
    for worker, key in (("w1", lease.key), ("w0", future), ("w0", Key(job=job(2), sub_bundle=0, attempt=0))):
        with pytest.raises(Rejection, match="never asked for"):
            scheduler.check(worker, key)


def test_only_what_is_needed_no_more_can_be_dropped(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    made = scheduler.add(job(1), "c", {"x": b"x"})
    (lease,) = scheduler.tasks(0)
    with pytest.raises(Rejection, match="not withdrawn"):
        scheduler.withdrawn("w0", lease.key)
    assert scheduler.skip(made, [0]) == [lease]
    with pytest.raises(Rejection, match="never asked for"):
        scheduler.withdrawn("w1", lease.key)
    assert [*scheduler.leases] == [lease.key]
    scheduler.withdrawn("w0", lease.key)
    assert not scheduler.leases
    assert scheduler.replicas.state(0, "w0") == State.COMPUTED


def test_a_job_is_given_up_after_many_attempts(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    for attempt in range(MAX_FAILURES):
        assert scheduler.exhausted() == []
        (lease,) = scheduler.tasks(0)
        assert lease.key.attempt == attempt
        scheduler.failed("w0", lease.key)
    assert scheduler.exhausted() == [(job(1), 0)]
    scheduler.remove(job(1))
    assert (scheduler.leases, scheduler.jobs, scheduler.exhausted()) == ({}, {}, [])


def test_a_job_resumes_from_a_journal(manifest: Manifest) -> None:
    """A sub-bundle counts as done if the journal says so, and also if it holds all its outputs."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"b": b""}, done=[0, 1])
    scheduler.add(job(2), "c", {"x": b"", "a": b""})
    assert given_out(scheduler.tasks(0)) == [(1, 2, "w0"), (2, 1, "w0")]


def test_the_first_of_several_answers_wins(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w1", 1: "w0 w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    slow, fast = scheduler.tasks(0)
    assert given_out([slow, fast]) == [(1, 0, "w0"), (1, 0, "w1")]
    assert slow.key != fast.key
    scheduler.arrived(fast.key, "a", b"")
    assert given_out(scheduler.tasks(0)) == [(1, 1, "w1"), (1, 1, "w0")]  # the free one first
    assert len(scheduler.leases) == 3  # w0 still computes
    with pytest.raises(Rejection, match="done already"):
        scheduler.check("w0", slow.key)
    assert len(scheduler.leases) == 2
    assert scheduler.lost("w1") == [0, 1]
    assert scheduler.tasks(0) == []  # w0 was asked


def test_a_straggler_is_not_sent_more_than_it_can_take(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w1", 1: "w1", 2: "w1"})
    slow = []
    for number in range(6):
        scheduler.add(job(number), "c", {"x": b"x"})
        while leases := scheduler.tasks(0):
            slow += [lease for lease in leases if lease.worker == "w0"]
            for lease in leases:
                if lease.worker == "w1":
                    answer(scheduler, lease)
        scheduler.remove(job(number))
    assert len(slow) == LEASE_WINDOW == len(scheduler.leases)
    for lease in slow:
        with pytest.raises(Rejection, match="done already"):
            scheduler.check("w0", lease.key)
    assert scheduler.leases == {}


def test_answers_that_are_to_be_compared_are_taken_late(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w1 w2", 1: "w0", 2: "w0"}, votes=3)
    scheduler.add(job(1), "c", {"x": b"x"})
    leases = scheduler.tasks(0)
    assert [lease.worker for lease in leases] == ["w0", "w1", "w2"]
    scheduler.arrived(leases[0].key, "a", b"")
    scheduler.remove(job(1))
    scheduler.check("w2", leases[2].key)
    scheduler.answered(leases[2].key)
    assert [lease.worker for lease in scheduler.leases.values()] == ["w1"]


def test_a_worker_that_streams_weights_computes_a_sub_bundle_for_many_jobs(manifest: Manifest) -> None:
    """Algorithm 3: a worker changes from one sub-bundle to another as often as there are sub-bundles, not jobs."""
    for streaming, changes in ((frozenset[str](), 24), (frozenset({"w0"}), 3)):
        scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
        scheduler.streaming = streaming
        for number in range(12):
            scheduler.add(job(number), "c", {"x": b"x"})
        done = []
        while scheduler.tasks(0) or scheduler.leases:
            done.append(answer_oldest(scheduler))
        assert len(done) == 36
        assert 1 + sum(a != b for a, b in pairwise(done)) <= changes


def test_one_sub_bundle_is_not_computed_forever(manifest: Manifest) -> None:
    """Later sub-bundles get their turn under an endless stream of new jobs."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.streaming = frozenset({"w0"})
    finished = 0
    for number in range(8 * MAX_BATCH):
        for more in (0, 1):
            scheduler.add(job(2 * number + more), "c", {"x": b"x"})
        scheduler.tasks(0)
        answer_oldest(scheduler)
        finished += sum(each.flow.finished for each in scheduler.jobs.values())
    assert finished


def test_what_needs_a_tensor_is_leased_while_it_arrives(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (first,) = scheduler.tasks(0)
    scheduler.begun(first.key, "a")
    (second,) = scheduler.tasks(0)
    assert (second.worker, second.key.sub_bundle, second.fed) == ("w1", 1, {"a": first.key})
    scheduler.begun(first.key, "a")  # the second chunk
    assert scheduler.tasks(0) == []
    assert scheduler.arrived(first.key, "a", b"") == ("x",)
    assert scheduler.tasks(0) == []
    assert scheduler.arrived(second.key, "b", b"") == ("a",)
    (third,) = scheduler.tasks(0)
    assert (third.key.sub_bundle, third.fed) == (2, {})


@pytest.mark.parametrize("how", ["lost", "expired", "failed", "released"])
def test_what_is_fed_by_a_lease_that_fails_is_leased_again(manifest: Manifest, how: str) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w0"})
    made = scheduler.add(job(1), "c", {"x": b"x"})
    (first,) = scheduler.tasks(0)
    scheduler.begun(first.key, "a")
    assert given_out(scheduler.tasks(0)) == [(1, 1, "w1")]
    if how == "lost":
        assert scheduler.lost("w0") == [0, 2]
        hold(scheduler, {0: "w1", 2: "w1"})
    elif how == "expired":
        assert [lease.key.sub_bundle for lease in scheduler.expire(10)] == [0, 1]
    elif how == "failed":
        scheduler.failed("w0", first.key)
    else:
        scheduler.release("w0")
    assert scheduler.leases == {}
    assert made.failures[1] == 0  # its worker is not to blame
    scheduler.begun(first.key, "a")  # a chunk of a lease that has ended
    (again,) = scheduler.tasks(11)
    assert (again.key.sub_bundle, again.key.attempt) == (0, 1)
    scheduler.arrived(again.key, "a", b"")
    (last,) = scheduler.tasks(11)
    assert (last.key.sub_bundle, last.key.attempt, last.worker, last.fed) == (1, 1, "w1", {})


def test_what_is_fed_by_the_slower_of_two_is_leased_again(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w2", 1: "w1", 2: "w1"})
    scheduler.add(job(1), "c", {"x": b"x"})
    slow, fast = scheduler.tasks(0)
    for each_key in (slow.key, fast.key):
        scheduler.begun(each_key, "a")
    (fed,) = scheduler.tasks(0)
    assert fed.fed == {"a": slow.key}
    scheduler.arrived(fast.key, "a", b"")
    (again,) = scheduler.tasks(0)
    assert (again.key.sub_bundle, again.key.attempt, again.fed) == (1, 1, {})
    assert [*scheduler.leases] == [slow.key, again.key]


def test_answers_that_are_to_be_compared_are_not_passed_on_before(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w1 w2", 1: "w0", 2: "w0"}, votes=3)
    scheduler.add(job(1), "c", {"x": b"x"})
    for lease in scheduler.tasks(0):
        scheduler.begun(lease.key, "a")
    assert scheduler.tasks(0) == []


@settings(max_examples=200)
@given(st.data())
def test_whatever_happens_every_job_ends(data: st.DataObject) -> None:
    """Every job ends while one worker is left, after losses, deadlines, failures and late results in any order."""
    graph = data.draw(st.sampled_from(GRAPHS))
    count = len(graph.runs)
    copies = data.draw(st.sampled_from([1, 2]))
    spare = " w2" if copies == 2 else ""
    scheduler = loaded(graph, {sub_bundle: f"w{sub_bundle % 2}{spare}" for sub_bundle in range(count)})
    scheduler.streaming = data.draw(st.sampled_from([frozenset(), frozenset({"w0"})]))
    scheduler.replicas.dealt = frozenset(data.draw(st.sets(st.integers(0, count - 1))))
    for number in range(3):
        scheduler.add(job(number), "c", {"x": b""})
    out: list[Lease] = []
    now = 0.0
    for _ in range(data.draw(st.integers(0, 30))):
        now += 1
        out += scheduler.tasks(now)
        what = data.draw(st.sampled_from(["answer", "answer", "begin", "begin", "lose", "expire", "fail", "release"]))
        if what == "answer" and out:
            answer(scheduler, out.pop(data.draw(st.integers(0, len(out) - 1))))
        elif what == "begin" and out:
            lease = out[data.draw(st.integers(0, len(out) - 1))]
            for tensor in graph.outputs[lease.key.sub_bundle][: data.draw(st.integers(1, 2))]:
                if taken(scheduler, lease):
                    scheduler.begun(lease.key, tensor)
        elif what == "lose":
            worker = data.draw(st.sampled_from(["w0", "w1"]))
            scheduler.lost(worker)
            other = "w1" if worker == "w0" else "w0"
            hold(scheduler, dict.fromkeys(range(count), other if copies == 1 else f"{other} w2"))
        elif what == "expire":
            scheduler.expire(now)
        elif what == "release":
            scheduler.release("w0")
        elif out:
            scheduler.failed(out[0].worker, out[0].key)
        for lease in scheduler.leases.values():
            made = scheduler.jobs[lease.key.job]
            comes = all(name in made.tensors or source in scheduler.leases for name, source in lease.fed.items())
            assert comes or lease.key.sub_bundle in made.flow.done
            assert not made.arriving.keys() & {name for sub_bundle in made.flow.done for name in graph.outputs[sub_bundle]}
    for _ in range(100):
        now += 20
        scheduler.expire(now)
        for lease in scheduler.tasks(now):
            answer(scheduler, lease)
    assert all(each.flow.finished for each in scheduler.jobs.values())
    assert scheduler.leases == {}


GRAPHS: list[SubBundleGraph] = []


@pytest.fixture(autouse=True, scope="module")
def graphs() -> None:
    """Fill `GRAPHS`: hypothesis cannot use function-scoped fixtures."""
    template = SubBundleGraph.__new__(SubBundleGraph)
    for inputs, outputs in (
        ([("x",), ("a",), ("b",)], [("a",), ("b",), ("y",)]),
        ([("x",), ("a",), ("a",), ("s", "t")], [("a",), ("s",), ("t",), ("y",)]),
        ([("x",), ("a",), ("a", "b")], [("a", "b"), (), ("y",)]),
    ):
        template = SubBundleGraph.__new__(SubBundleGraph)
        template.inputs, template.outputs = dict(enumerate(inputs)), dict(enumerate(outputs))
        template.results, template.runs = ("y",), {i: range(i, i + 1) for i in range(len(inputs))}
        template.first = tuple(template.runs)
        template.moved_bytes = dict.fromkeys(range(len(inputs)), LEASED_BYTES if len(GRAPHS) == 2 else 0)
        GRAPHS.append(template)


def has_its_inputs(scheduler: Scheduler, lease: Lease) -> bool:
    """Return whether the inputs that were to be fed have arrived; else the worker waits, or nothing more comes."""
    made = scheduler.jobs[lease.key.job]
    return not lease.fed or (lease.key in scheduler.leases and made.tensors.keys() >= lease.fed.keys())


def taken(scheduler: Scheduler, lease: Lease) -> bool:
    """Return whether the worker's result is accepted."""
    try:
        scheduler.check(lease.worker, lease.key)
    except Rejection:
        return False
    return has_its_inputs(scheduler, lease)


def answer(scheduler: Scheduler, lease: Lease) -> None:
    if taken(scheduler, lease):
        for tensor in scheduler.graph.outputs[lease.key.sub_bundle]:
            scheduler.arrived(lease.key, tensor, b"")


def answer_oldest(scheduler: Scheduler) -> int:
    """Have a worker answer the oldest lease; return its sub-bundle."""
    lease = next(iter(scheduler.leases.values()))
    answer(scheduler, lease)
    return lease.key.sub_bundle


def test_the_lease_of_a_moved_sub_bundle_is_given_out_again(manifest: Manifest) -> None:
    """A worker drops a sub-bundle that the operator moves, and its input."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w2"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (old,) = scheduler.tasks(0)
    hold(scheduler, {0: "w1", 1: "w1", 2: "w2"})
    scheduler.withdraw()
    (new,) = scheduler.tasks(0)
    assert (old.worker, new.worker, new.key.sub_bundle) == ("w0", "w1", 0)
    scheduler.check("w0", old.key)  # a result that it has already computed is as good
    assert scheduler.arrived(old.key, "a", b"") == ("x",)


def test_leases_of_workers_that_keep_the_sub_bundle_go_on(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w1", 2: "w2"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (lease,) = scheduler.tasks(0)
    hold(scheduler, {0: "w0 w1", 1: "w1", 2: "w2"})
    scheduler.withdraw()
    assert lease.key in scheduler.leases


def test_dealt_inputs_go_to_whoever_is_free(manifest: Manifest) -> None:
    """Each job is computed by one of the homes; when that one is lost, by another."""
    scheduler = loaded(chain(manifest), {0: "w0 w1", 1: "w2", 2: "w2"})
    scheduler.replicas.dealt = frozenset({0})
    scheduler.speeds = {"w1": 2.0, "w0": 1.0}
    for number in range(6):
        scheduler.add(job(number), "c", {"x": b"x"})
    assert given_out(scheduler.tasks(0)) == [(0, 0, "w1"), (1, 0, "w0"), (2, 0, "w1"), (3, 0, "w0")]
    (lease,) = [each for each in scheduler.leases.values() if each.key.job == job(1)]
    answer(scheduler, lease)
    assert given_out(scheduler.tasks(0)) == [(1, 1, "w2"), (4, 0, "w0")]  # the oldest job may be behind
    scheduler.lost("w0")
    answer_oldest(scheduler)
    assert given_out(scheduler.tasks(0)) == [(3, 0, "w1"), (0, 1, "w2")]


def test_two_generations_live_side_by_side(manifest: Manifest) -> None:
    """Jobs end under the generation that they began with; a run that both have is one sub-bundle."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w1"})
    old = scheduler.add(job(1), "c", {"x": b"x"})
    scheduler.generations.add(1, {0: range(1), 3: range(1, 3)})
    assert given_out(scheduler.tasks(0)) == [(1, 0, "w0")]
    hold(scheduler, {3: "w1"})
    scheduler.generations.activate(1)
    new = scheduler.add(job(2), "c", {"x": b"x"})
    assert given_out(scheduler.tasks(0)) == [(2, 0, "w0")]
    done = [answer_oldest(scheduler) for _ in range(2)]
    while scheduler.tasks(0) or scheduler.leases:
        done.append(answer_oldest(scheduler))
    assert (old.flow.done, new.flow.done, sorted(done)) == ({0, 1, 2}, {0, 3}, [0, 0, 1, 2, 3])
    assert not scheduler.generations.is_drained(0)
    scheduler.remove(job(1))
    assert scheduler.generations.drop(0) == (1, 2)
    assert (scheduler.replicas.homes, [*scheduler.graph.runs]) == ({0: ("w0",), 3: ("w1",)}, [0, 3])
    assert scheduler.replicas.sub_bundles_of("w1") == [3]


def test_a_lease_of_a_dropped_sub_bundle_is_over(manifest: Manifest) -> None:
    scheduler = loaded(chain(manifest), {0: "w0 w1", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    slow, fast = scheduler.tasks(0)
    answer(scheduler, fast)
    scheduler.remove(job(1))
    assert [*scheduler.leases] == [slow.key]
    scheduler.generations.add(1, {3: range(3)})
    scheduler.generations.activate(1)
    assert scheduler.generations.drop(0) == (0, 1, 2)
    assert scheduler.leases == {}
    with pytest.raises(Rejection, match="done already"):
        scheduler.check("w0", slow.key)


def test_inputs_that_a_worker_has_dropped_are_sent_again(manifest: Manifest) -> None:
    """A worker whose orders were replaced before it could fetch them may hold nothing for a moment."""
    scheduler = loaded(chain(manifest), {0: "w0", 1: "w0", 2: "w0"})
    scheduler.add(job(1), "c", {"x": b"x"})
    (first,) = scheduler.tasks(0)
    scheduler.missing("w0", [0, 1])
    assert [*scheduler.leases] == [first.key]
    scheduler.missing("w0", [1])
    assert scheduler.tasks(0) == []
    scheduler.replicas.loaded("w0", [0, 1])
    (second,) = scheduler.tasks(0)
    assert (second.key.sub_bundle, second.key.attempt) == (0, 1)
