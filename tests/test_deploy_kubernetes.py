"""The Kubernetes manifests of a cluster in docs/deploy: their parts fit together, and our commands accept theirs.

``make deploy-check`` has tools that others wrote check them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hyps.runtime.cluster.broker.hub_files import init_hub
from hyps.runtime.cluster.cli import manager as manager_cli
from hyps.runtime.cluster.cli import worker as worker_cli
from hyps.runtime.terminal.parser import size
from tests.repository import ROOT

FOLDER = ROOT / "docs" / "deploy" / "kubernetes"
README = (ROOT / "docs" / "deploy" / "README.md").read_text()
PARTS: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "cluster.yaml").read_text()))
SETS = {part["metadata"]["name"]: part["spec"] for part in PARTS if part["kind"] == "StatefulSet"}
PARSERS = {"hyps-manager": manager_cli.manager_parser, "hyps-worker": worker_cli.worker_parser}


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SETS[name]["template"]["spec"]
    return found


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {part["metadata"]["name"]: part["spec"] for part in PARTS if part["kind"] == kind}


def containers() -> Iterator[Any]:
    for name in SETS:
        for container in (*pod(name).get("initContainers", ()), *pod(name)["containers"]):
            yield pytest.param(name, container, id=f"{name}, {container['name']}")


@pytest.mark.parametrize(("name", "container"), [*containers()])
def test_a_container_mounts_what_its_pod_has_and_runs_without_rights(name: str, container: dict[str, Any]) -> None:
    there = {each["name"] for each in pod(name)["volumes"]}
    there |= {each["metadata"]["name"] for each in SETS[name].get("volumeClaimTemplates", ())}
    assert {each["name"] for each in container["volumeMounts"]} <= there
    assert pod(name)["securityContext"]["runAsNonRoot"]
    assert not pod(name)["automountServiceAccountToken"]
    locked = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["securityContext"] == locked
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", PARSERS)
def test_our_commands_accept_theirs(name: str) -> None:
    words = pod(name)["containers"][0]["command"]
    assert words[0] == name
    read = PARSERS[name]().parse_args(words[1:])
    mounts = {each["mountPath"] for each in pod(name)["containers"][0]["volumeMounts"]}
    folders = [read.join, *([read.cache] if name == "hyps-worker" else [read.journal, read.library, read.token_file])]
    assert all(any(str(each).startswith(mount) for mount in mounts) for each in folders)


def test_a_worker_has_room_above_its_budget_and_its_own_join_file_alone() -> None:
    (container,) = pod("hyps-worker")["containers"]
    words = container["command"]
    budget = size(words[words.index("--memory") + 1])
    assert budget < size(container["resources"]["limits"]["memory"]) < 1.2 * budget
    assert container["resources"]["limits"] == container["resources"]["requests"]
    (join,) = (each for each in container["volumeMounts"] if each["name"] == "join")
    assert join["subPathExpr"] == "$(POD_NAME)"
    assert container["env"] == [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


def test_services_reach_the_pods_of_their_name() -> None:
    for name, service in of_kind("Service").items():
        labels = SETS[name]["template"]["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        assert SETS[name]["serviceName"] == name
        offered = {port["name"] for each in pod(name)["containers"] for port in each.get("ports", ())}
        assert {port["targetPort"] for port in service.get("ports", ())} <= offered
    assert all(each["template"]["metadata"]["labels"]["hyps"] == "true" for each in SETS.values())


def test_the_number_of_workers_follows_a_metric_that_the_manager_gives() -> None:
    from hyps.runtime.web.metrics import _WORKER_METRICS

    (scaler,) = of_kind("HorizontalPodAutoscaler").values()
    assert scaler["scaleTargetRef"]["name"] == "hyps-worker"
    assert scaler["minReplicas"] == SETS["hyps-worker"]["replicas"] < scaler["maxReplicas"]
    (metric,) = scaler["metrics"]
    assert metric["external"]["metric"]["name"] in _WORKER_METRICS
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    assert rule["seriesQuery"] == rule["name"]["as"] == metric["external"]["metric"]["name"]


def test_the_guide_makes_every_secret(tmp_path: Any) -> None:
    mounted = {volume["secret"]["secretName"] for name in SETS for volume in pod(name)["volumes"] if "secret" in volume}
    made = set(re.findall(r"kubectl -n hyps create secret generic ([\w-]+)", README))
    assert mounted == made
    assert "init-hub /hub/files --host hyps-hub" in README
    assert f"seq 0 {of_kind('HorizontalPodAutoscaler')['hyps-worker']['maxReplicas'] - 1}" in README
    files = tmp_path / "files"
    init_hub(files, ["hyps-hub"], 8883)
    (start,) = (each for each in pod("hyps-hub")["initContainers"])
    copied = shlex.split(start["command"][-1].replace(";", " ; "))
    assert {"/hub/files/data", "/secret/*", "/hub/files/"} <= {*copied}
    assert (files / "data").is_dir()  # the only folder: a secret holds files alone
    assert [each.name for each in files.iterdir() if each.is_dir()] == ["data"]
