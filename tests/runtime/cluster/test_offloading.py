"""Offload the rest of inferences to a cluster of real processes: the same bits, live tensors alone, and nothing is lost."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import hyps.runtime
from hyps.compiler.api import compile_model
from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster import hub_tier
from hyps.runtime.cluster.hub_tier import HubTier
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.exits.tier import RestAnswer
from tests.compiler.onnxes import saved
from tests.exits import EXITS, WIDTH, exiting_network, write_table
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.offloads import OFFLOAD_AT, Arrays, Wire, control, linked, reports, taken
from tests.waiting import PATIENCE_S, wait_for


def test_the_rest_goes_up_with_the_live_tensors_alone(
    edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path
) -> None:
    """Behind every exit, over two workers; what crosses is counted at the hub."""
    edge.start(2)
    manifest = read_manifest(edge.bundle)
    with closing(linked(edge.bundle, edge.url)) as tier:
        for number, actions in enumerate(OFFLOAD_AT):
            exits = control(edge.bundle, tier, write_table(edge.bundle, tmp_path / "p.json", actions))
            wait_for("runs that are cut", lambda after=number + 1: tier.link(after) is not None)  # type: ignore[misc]
            wire = Wire(edge.url)
            found = reports(exits, edge.bundle, samples, expected)
            wire.wait_for_submits(len(samples))
            wire.connection.close()
            live = rest_inputs(manifest, number + 1)
            assert "x" not in live
            assert {*live} <= {*manifest.steps[manifest.exits[number].after_step].live}
            assert wire.sent == {name: manifest.tensors[name].nbytes * len(samples) for name in live}
            assert {submit["after_exit"] for submit in wire.submits} == {number + 1}
            for report in found:
                assert (report.number, report.ended_by, report.steps_not_run) == (4, "network", 0)
                assert report.offload
                assert (report.offload.at, report.offload.after_exit) == (edge.url, number + 1)
                assert sum(wire.sent.values()) / len(samples) < report.offload.sent_bytes < 2 * WIDTH * 4
            assert (exits.offloads, exits.counts[number]) == (len(samples), len(samples))


def test_whole_submissions_and_rests_side_by_side(
    edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path
) -> None:
    edge.start(2, "--placement", "best")
    whole: list[Any] = []

    def run_whole() -> None:
        with closing(edge.engine()) as engine:
            whole.extend(engine.run(in_memory(samples * 3)))

    other = threading.Thread(target=run_whole)
    with closing(linked(edge.bundle, edge.url)) as tier:
        other.start()
        exits = control(edge.bundle, tier, write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[1]))
        taken(exits, edge.bundle, samples, expected)
        found = reports(exits, edge.bundle, samples, expected)
        other.join()
    assert all(report.offload and report.offload.at for report in found)
    assert [result.number for result in whole] == [*range(3 * len(samples))]
    for result, right in zip(whole, expected * 3, strict=True):
        assert all(np.array_equal(result.outputs[name], right[name]) for name in EXITS)


def test_a_killed_manager_goes_on_with_a_rest(
    edge: Devices, samples: list[Any], expected: list[Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has accepted is in its journal, with the steps that it begins behind."""
    monkeypatch.setattr(hub_tier, "SILENT_S", 4 * PATIENCE_S)
    edge.start(1)
    manifest, executor, held = read_manifest(edge.bundle), load_executor(edge.bundle), dict(samples[0])
    for index in range(manifest.exits[1].after_step + 1):
        with executor.step(index, again=False) as ready:
            ready.run(held)
    rest = {name: held[name] for name in rest_inputs(manifest, 2)}
    answers: list[RestAnswer] = []
    wire = Wire(edge.url)
    with closing(linked(edge.bundle, edge.url)) as tier, closing(wire.connection):
        wait_for("runs that are cut", lambda: not tier.complete(2, rest, PATIENCE_S).problem)
        sent = wire.sent.total()
        wire.topics.clear()
        edge.freeze("w0")
        sending = threading.Thread(target=lambda: answers.append(tier.complete(2, rest, 4 * PATIENCE_S)))
        sending.start()
        wait_for("a lease", lambda: wire.sent.total() > sent and "w0/input" in wire.topics)
        edge.kill("manager")
        edge.start_manager()
        edge.processes["w0"].send_signal(signal.SIGCONT)
        sending.join()
    assert answers[0].problem == ""
    assert list(answers[0].outputs) == ["late", "scores"]
    assert all(np.array_equal(answers[0].outputs[name], expected[0][name]) for name in answers[0].outputs)


def test_a_link_that_dies_costs_no_answer(edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path) -> None:
    """The worker is frozen, so that a rest is under way when the hub is killed; later, everything is computed here."""
    edge.start(1)
    policy = write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[0])
    wire = Wire(edge.url)
    with closing(linked(edge.bundle, edge.url)) as tier:
        taken(control(edge.bundle, tier, policy), edge.bundle, samples, expected)
        edge.freeze("w0")
        before, sent = len(wire.submits), wire.sent.total()

        def kill() -> None:
            wait_for("a rest under way", lambda: len(wire.submits) > before and wire.sent.total() > sent)
            edge.kill("hub")

        killing = threading.Thread(target=kill)
        killing.start()
        found = reports(control(edge.bundle, tier, policy), edge.bundle, samples, expected)
        killing.join()
        wire.connection.close()
    assert found[0].offload
    assert found[0].offload.at == ""
    assert found[0].offload.problem
    assert found[0].offload.sent_bytes > WIDTH * 4
    assert not any(report.offload for report in found[1:])
    assert all(report.number == 4 for report in found)


def test_another_bundle_is_refused_and_computed_here(
    edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path
) -> None:
    edge.start(1)
    other = tmp_path / "other"
    compile_model(saved(tmp_path / "n.onnx", exiting_network()), other, memory_bytes=99_000_000, exits=["auto"])
    told: list[str] = []
    with closing(HubTier(other, edge.url, None, warn=told.append)) as tier:
        wait_for("the refusal", lambda: bool(told))
        policy = write_table(other, tmp_path / "p.json", OFFLOAD_AT[0])
        found = reports(control(other, tier, policy), other, samples, expected)
        assert tier.complete(1, {}, 5).problem == "the manager runs another bundle than this one"
    assert not any(report.offload for report in found)
    assert told == [f"nothing is offloaded to {edge.url}: the manager runs another bundle than this one"]


def test_a_hub_that_is_not_there_delays_nothing(
    exiting: Path, samples: list[Any], expected: list[Arrays], tmp_path: Path
) -> None:
    with closing(HubTier(exiting, "mqtt://192.0.2.1:1883", None)) as tier:
        policy = write_table(exiting, tmp_path / "p.json", OFFLOAD_AT[0])
        found = reports(control(exiting, tier, policy), exiting, samples, expected)
    assert not any(report.offload for report in found)


def test_hyps_run_says_where_the_rest_went(
    edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path, hyps_run: Callable[..., CompletedProcess[str]]
) -> None:
    edge.start(1)
    np.save(tmp_path / "x.npy", samples[0]["x"])
    policy = write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[0])
    options = ["--exit-policy", policy, "--offload", edge.url, "--offload-wait", "20s"]
    with closing(linked(edge.bundle, edge.url)) as tier:
        taken(control(edge.bundle, tier, policy), edge.bundle, samples, expected)
    record = json.loads(hyps_run(edge.bundle, tmp_path / "x.npy", *options, "--json").stdout)
    assert record["exit"]["offload"]["at"] == edge.url
    assert record["exit"]["offload"]["sent_bytes"] > WIDTH * 4
    assert record["top"][0]["index"] == int(expected[0]["scores"].argmax())
    assert record["peak_rss_bytes"] < record["budget_bytes"]
    for batch in ("1", "4"):  # rests are away while the next inputs compute
        done = hyps_run(edge.bundle, *[tmp_path / "x.npy"] * 8, *options, "--batch", batch, "--json")
        assert "exceeded" not in done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["exit"]["offload"]["at"] for each in records] == [edge.url] * 8
        assert {each["top"][0]["score"] for each in records} == {record["top"][0]["score"]}
    with hyps.runtime.load(edge.bundle, exit_policy=str(policy), offload=edge.url, offload_wait_s=20) as bundle:
        outputs, report = bundle.run_to_exit(samples[0])
    assert report
    assert report.offload
    assert report.offload.at == edge.url
    assert all(np.array_equal(outputs[name], expected[0][name]) for name in outputs)
    shown = hyps_run(edge.bundle, tmp_path / "x.npy", *options).stdout
    assert f"; offloaded behind exit 1 to {edge.url}, 0.003 MB sent" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--exit-policy", "threshold:0.5"], "needs a policy that offloads"),
        ([], "needs a policy that offloads"),
        (["--exit-policy", "p.json", "--engine", "mqtt://localhost"], "is for inferences of this device"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(
    options: list[str], refused: str, exiting: Path, hyps_run: Callable[..., CompletedProcess[str]]
) -> None:
    done = hyps_run(exiting, "x.npy", "--offload", "mqtt://localhost", *options)
    assert done.returncode == 2
    assert refused in done.stderr


@pytest.mark.parametrize(
    ("address", "refused"),
    [("http://edge", "is not an address of a hub"), ("missing.join", "cannot read missing.join")],
    ids=str,
)
def test_addresses_that_are_none(
    address: str, refused: str, exiting: Path, tmp_path: Path, hyps_run: Callable[..., CompletedProcess[str]]
) -> None:
    policy = write_table(exiting, tmp_path / "p.json", OFFLOAD_AT[0])
    done = hyps_run(exiting, "x.npy", "--offload", address, "--exit-policy", policy)
    assert done.returncode == 2
    assert refused in done.stderr
