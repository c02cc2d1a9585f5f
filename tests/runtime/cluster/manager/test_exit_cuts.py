"""Cut runs of steps behind exits before inferences begin there; they wait, or are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyps.compiler.api import compile_model
from hyps.runtime.bundle.exits import rest_start
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.exit_cuts import ExitCuts
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.protocol import client_messages
from hyps.runtime.cluster.protocol.client_messages import Ping, Pong, Refused, Reply, SendInputs, Submit
from hyps.runtime.cluster.transfer.journal import Journal
from tests.compiler.onnxes import saved
from tests.exits import exiting_network

BUNDLE = "b" * 64


@pytest.fixture(scope="module")
def exiting(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("cuts")
    compile_model(saved(folder / "n.onnx", exiting_network()), folder / "bundle", memory_bytes=100_000_000, exits=["auto"])
    return read_manifest(folder / "bundle")


class Cluster:
    """The runs of steps of one manager, with one worker or group of workers; `cuts` is under test."""

    def __init__(self, manifest: Manifest, group: int = 0) -> None:
        self.stops = [len(manifest.steps)]
        self.placer = SimpleNamespace(cuts=set[int]())
        self.deployment = SimpleNamespace(placement=None)
        workers = SimpleNamespace(online={"site": SimpleNamespace(group=group)})
        self.manifest = manifest
        self.cuts = ExitCuts(manifest, self.deployment, workers, self.placer, lambda _: None)  # type: ignore[arg-type]
        self.place(())

    def place(self, exits: Any) -> None:
        """Cut the runs behind these exits."""
        self.stops = [*(rest_start(self.manifest, number) for number in sorted(exits)), len(self.manifest.steps)]
        runs = [range(start, stop) for start, stop in zip([0, *self.stops], self.stops, strict=False)]
        self.deployment.placement = SimpleNamespace(runs=runs, homes=[("site",)] * len(runs))

    def skipped(self, step: int) -> tuple[int, ...] | None:
        return tuple(range(self.stops.index(step) + 1)) if step in self.stops else () if step == 0 else None


@pytest.fixture
def cluster(exiting: Manifest) -> Cluster:
    return Cluster(exiting)


@pytest.fixture
def replies() -> list[Reply]:
    return []


@pytest.fixture
def submissions(exiting: Manifest, cluster: Cluster, replies: list[Reply], tmp_path: Path) -> Submissions:
    journal = Journal(tmp_path / "journal")
    return Submissions(
        exiting, BUNDLE, journal, lambda _, payload, __: replies.append(client_messages.decode_reply(payload)), cluster.cuts
    )


def test_a_ping_has_runs_cut_ahead(cluster: Cluster, submissions: Submissions, replies: list[Reply]) -> None:
    """Numbers that are no exits before the last are passed over."""
    ping = Ping(number=1, bundle=BUNDLE, exits=(1, 3, 4, 9))
    submissions.handle("c", ping, cluster.skipped)
    assert replies == [Pong(number=1, exits=(), waits=True)]
    assert cluster.placer.cuts == {1, 3}
    assert cluster.cuts.begin()
    cluster.place({1, 3})
    cluster.cuts.settle()
    submissions.handle("c", ping, cluster.skipped)
    assert replies[1:] == [Pong(number=1, exits=(1, 3), waits=False)]


def test_a_rest_waits_until_the_runs_are_cut(cluster: Cluster, submissions: Submissions, replies: list[Reply]) -> None:
    """Others that need no cut pass it."""
    submissions.handle("c", Submit(job="1" * 32, bundle=BUNDLE, after_exit=2), cluster.skipped)
    submissions.handle("c", Submit(job="2" * 32, bundle=BUNDLE), cluster.skipped)
    submissions.admit(0, cluster.skipped)
    submissions.admit(0, cluster.skipped)
    assert replies == [SendInputs(job="2" * 32)]
    cluster.cuts.begin()
    submissions.admit(0, cluster.skipped)
    assert len(replies) == 1
    cluster.place({2})
    cluster.cuts.settle()
    submissions.admit(0, cluster.skipped)
    assert replies[1:] == [SendInputs(job="1" * 32)]


def test_an_input_with_a_policy_waits_for_cuts_at_every_exit(
    cluster: Cluster, submissions: Submissions, replies: list[Reply]
) -> None:
    """Where they cannot be made, it goes on without them."""
    submit = Submit(job="1" * 32, bundle=BUNDLE, policy="threshold:0.5")
    submissions.handle("c", submit, cluster.skipped)
    submissions.admit(0, cluster.skipped)
    assert (replies, cluster.placer.cuts) == ([], {1, 2, 3})
    cluster.cuts.give_up()
    submissions.admit(0, cluster.skipped)
    assert replies == [SendInputs(job="1" * 32)]


@pytest.mark.parametrize(("group", "said"), [(4, "site, a group of workers, runs these steps as one"), (0, "as one")])
def test_runs_that_stay_whole_are_named(
    group: int, said: str, exiting: Manifest, replies: list[Reply], tmp_path: Path
) -> None:
    cluster = Cluster(exiting, group)
    submissions = Submissions(
        exiting,
        BUNDLE,
        Journal(tmp_path / "journal"),
        lambda _, payload, __: replies.append(client_messages.decode_reply(payload)),
        cluster.cuts,
    )
    submissions.handle("c", Submit(job="1" * 32, bundle=BUNDLE, after_exit=2), cluster.skipped)
    cluster.cuts.begin()
    cluster.cuts.settle()  # the group's run is not cut
    submissions.admit(0, cluster.skipped)
    (refused,) = replies
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("no inference can begin behind exit 2: ")
    assert refused.reason.endswith(said)
    submissions.handle("c", Ping(number=1, bundle=BUNDLE, exits=(2,)), cluster.skipped)
    assert replies[1:] == [Pong(number=1, exits=(), waits=False)]


def test_cuts_that_are_lost_are_asked_for_again(cluster: Cluster) -> None:
    cluster.cuts.ask(1)
    cluster.cuts.loading()
    cluster.cuts.ask_again()
    assert cluster.cuts.is_asked
    cluster.cuts.give_up()
    assert not cluster.cuts.is_coming
    assert cluster.cuts.ask(1) == "the workers have no room for runs of steps that are cut behind exit 1 now"
    assert cluster.cuts.begin()
    assert cluster.cuts.is_coming
