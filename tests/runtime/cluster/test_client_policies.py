"""Have a cluster end a client's inputs at exits by the policy that it sends with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.manager.client_policies import ClientPolicies
from hyps.runtime.cluster.protocol.client_messages import Submit
from hyps.runtime.exits.policies import TablePolicy, ThresholdPolicy
from tests.exits import EXITS, write_table
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.offloads import Arrays

Run = Callable[..., CompletedProcess[str]]


def test_each_client_has_its_policy(
    edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path, hyps_run: Run
) -> None:
    """The manager has none of its own: it cuts its runs of steps for the first client that sends one."""
    edge.start(1)
    np.save(tmp_path / "x.npy", samples[0]["x"])
    middle = write_table(edge.bundle, tmp_path / "middle.json", ["stay", "exit", "exit"])
    command = (edge.bundle, tmp_path / "x.npy", "--engine", edge.url, "--json", "--save", tmp_path / "y.npz")
    for policy, number in (("threshold:0", 1), (str(middle), 2), ("threshold:1", 4), ("never", None)):
        record = json.loads(hyps_run(*command, "--exit-policy", policy).stdout)
        assert (record["exit"]["number"] if number else record.get("exit")) == number
        outputs = np.load(tmp_path / "y.npz")
        assert [*outputs] == [*EXITS[:number]]
        assert all(np.array_equal(outputs[name], expected[0][name]) for name in outputs)


def test_a_policy_is_checked_and_kept_once(exiting: Path, tmp_path: Path) -> None:
    """Whatever a client calls it, no file is opened by that name."""
    manifest = read_manifest(exiting)
    policies = ClientPolicies(manifest)
    content = write_table(exiting, tmp_path / "p.json", ["exit"] * 3).read_bytes()
    kept = []
    for number, (policy, of_file) in enumerate([("policy.json", content), ("threshold:0.5", b""), ("", b"")]):
        submit = Submit(job=f"{number:032x}", bundle="b" * 64, policy=policy, policy_content=of_file)
        kept.append(policies.keep(submit))
    assert [(problem, each.policy_content) for each, problem in kept] == [("", b"")] * 3
    assert [type(policies.of(each)) for each, _ in kept] == [TablePolicy, ThresholdPolicy, type(None)]
    for policy, of_file in [
        (str(tmp_path / "p.json"), b""), ("policy.json", content[:-9]), ("threshold:7", b""), ("sometimes", b""),
        ("policy.onnx", content), ("policy.json", b"[" * 90_000),
    ]:  # fmt: skip
        _, problem = policies.keep(Submit(job="a" * 32, bundle="b" * 64, policy=policy, policy_content=of_file))
        assert problem
        assert "\n" not in problem
    first = kept[0][0]
    for number in range(16):
        policies.keep(Submit(job="a" * 32, bundle="b" * 64, policy=f"threshold:0.{number}"))
    assert policies.of(first) is None
