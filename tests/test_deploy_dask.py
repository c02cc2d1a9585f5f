"""The Kubernetes manifest of docs/deploy: its parts fit together, and its own checkers, where installed, agree."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hyps.runtime.device import process_memory as process
from hyps.runtime.terminal.parser import size
from tests.repository import ROOT

MANIFEST = ROOT / "docs" / "deploy" / "kubernetes" / "dask-cluster.yaml"
CLUSTER = yaml.safe_load(MANIFEST.read_text())
SCHEDULER, WORKER = (CLUSTER["spec"][role] for role in ("scheduler", "worker"))
PODS = [pytest.param(SCHEDULER["spec"], id="scheduler"), pytest.param(WORKER["spec"], id="worker")]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["containers"][0]["env"]}


def option(name: str) -> str:
    words: list[str] = WORKER["spec"]["containers"][0]["args"]
    return words[words.index(name) + 1]


def test_it_has_what_a_dask_cluster_needs() -> None:
    """As dask_kubernetes/operator/customresources/templates.yaml requires."""
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    assert CLUSTER["spec"].keys() == {"scheduler", "worker"}
    assert SCHEDULER.keys() == {"spec", "service"}
    assert WORKER.keys() == {"replicas", "spec"}
    assert WORKER["replicas"] >= 1


def test_the_service_reaches_the_scheduler() -> None:
    labels = {"dask.org/cluster-name": CLUSTER["metadata"]["name"], "dask.org/component": "scheduler"}  # the operator's
    assert SCHEDULER["service"]["selector"] == labels
    offered = {port["name"]: port["containerPort"] for port in SCHEDULER["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"]: port["port"] for port in SCHEDULER["service"]["ports"]} == offered
    assert offered["tcp-comm"] == 8786  # of the address that the operator gives to workers


def test_the_memory_of_a_worker_is_the_same_everywhere() -> None:
    resources = WORKER["spec"]["containers"][0]["resources"]
    limit_bytes = size(resources["limits"]["memory"])
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert option("--memory-limit") == str(limit_bytes)
    assert option("--resources") == f"memory={limit_bytes}"
    assert limit_bytes % 65536 == 0, "control groups round down to pages, and Dask then ignores its own limit"


def test_a_worker_is_lean_as_hyps_run_is() -> None:
    assert environment(WORKER["spec"]).items() >= process.LEAN_ENVIRONMENT.items()


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_mounts_what_it_has_and_runs_without_rights(pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} <= {
        port["name"] for port in container["ports"]
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_it_fetches_goes_where_it_can_write() -> None:
    mounts = {each["name"]: each for each in WORKER["spec"]["containers"][0]["volumeMounts"]}
    assert option("--local-directory") == environment(WORKER["spec"])["XDG_CACHE_HOME"] == mounts["scratch"]["mountPath"]


@pytest.mark.parametrize("pod", PODS)
def test_kubernetes_takes_it(pod: dict[str, Any]) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="100 MB of schemas: pip install kubernetes-validate")
    service = SCHEDULER["service"]
    parts = [
        {"apiVersion": "v1", "metadata": {"name": "x"}, "kind": kind, "spec": spec}
        for kind, spec in (("Pod", pod), ("Service", service))
    ]
    for part in parts:
        checker.validate(part, checker.latest_version(), strict=True)
    with pytest.raises(checker.ValidationError):
        checker.validate({**parts[0], "spec": {**pod, "container": []}}, checker.latest_version(), strict=True)


@pytest.mark.parametrize("pod", PODS)
def test_dask_takes_its_command(pod: dict[str, Any]) -> None:
    pytest.importorskip("distributed", reason="pip install 'dask[distributed]'")
    from importlib import import_module

    program, role, *words = pod["containers"][0]["args"]
    assert program == "dask"
    found = import_module(f"distributed.cli.dask_{role}").main.make_context(role, words).params
    assert not found["preload_argv"], "what Dask does not know it takes for a preloaded module's"
    assert not found.get("scheduler"), "the operator gives it in the environment"
