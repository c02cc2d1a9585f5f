"""The manager's REST interface, as a program uses it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hyps.compiler.bundle_writer.model_report import read_model_report
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.cluster.broker.certificates import make_certificates
from hyps.runtime.web.errors import WebFault
from hyps.runtime.web.library import Library
from tests.compiler.onnxes import classifier, model, node, value
from tests.runtime.cluster.devices import Devices
from tests.runtime.web.conftest import Stream, Web
from tests.waiting import PATIENCE_S, wait_for

HypsRun = Callable[..., subprocess.CompletedProcess[str]]


def test_a_model_becomes_a_bundle_that_is_served_and_computes_the_local_runs_bits(
    web: Web, root: Path, photograph: Path, hyps_run: HypsRun, tmp_path: Path
) -> None:
    uploaded = web("PUT", "/api/models/net/cifar10_vgg.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    assert uploaded.status_code == 201
    options = {"memory_bytes": 80_000_000, "split": "pooling", "preprocess": "cifar10"}
    planned = web.done("builds", web("POST", "/api/models/net/builds", json=options | {"dry_run": True}))
    assert (planned["state"], planned["bundle"]) == ("done", None)
    assert [bundle["name"] for bundle in web.get("/api/bundles")] == ["bundle"]
    built = web.done("builds", web("POST", "/api/models/net/builds", json=options | {"bundle": "mine"}))
    assert built["state"] == "done", built["message"]
    assert built["plan"] == planned["plan"]
    view = web.get("/api/bundles/mine")
    assert (view["photographs"], view["served"]) == (True, False)
    assert [part["name"] for part in view["partitions"]] == [part["name"] for part in built["plan"]["partitions"]]
    assert [part["reason"] for part in view["partitions"]] == [part["reason"] for part in built["plan"]["partitions"]]
    assert all(part["reason"]["text"] for part in view["partitions"])
    with tarfile.open(fileobj=io.BytesIO(web("GET", "/api/bundles/mine/archive").content)) as archive:
        archive.extractall(tmp_path, filter="data")
    check_files(tmp_path / "mine", read_manifest(tmp_path / "mine"))
    assert read_model_report(tmp_path / "mine")
    assert web("PUT", "/api/served", json={"bundle": "mine"}).json()["bundle"] == "mine"
    wait_for("loaded sub-bundles", web.ready)
    job = web.done("jobs", web("POST", "/api/jobs?name=photo.jpg&exact=true", data=photograph.read_bytes()))
    assert (job["state"], job["exact"]) == ("done", True), job["reason"]
    (tmp_path / "cluster.npz").write_bytes(web("GET", f"/api/jobs/{job['id']}/outputs").content)
    local = hyps_run(tmp_path / "mine", photograph, "--save", tmp_path / "local.npz", "--json")
    assert (tmp_path / "cluster.npz").read_bytes() == (tmp_path / "local.npz").read_bytes()
    assert [scored["score"] for scored in job["top"]] == [scored["score"] for scored in json.loads(local.stdout)["top"]]
    assert_spans(web, job)
    assert web("DELETE", "/api/bundles/mine").status_code == 409
    assert web("DELETE", "/api/models/net").status_code == 204
    assert web.get("/api/models") == []


def assert_spans(web: Web, job: dict[str, object]) -> None:
    """Each sub-bundle has one span, which lies within the job."""
    spans = job["spans"]
    assert isinstance(spans, list)
    shares = web.get("/api/status")["shares"]
    assert sorted(span["share"] for span in spans) == [share["number"] for share in shares]
    for span, share in zip(sorted(spans, key=lambda each: each["share"]), shares, strict=True):
        assert {span["worker"]} == set(share["homes"])
        assert 0 <= span["sent_s"] < span["begun_s"] <= span["done_s"] < job["seconds"]
        assert 0 < span["compute_s"] < span["begun_s"] - span["sent_s"] + 0.01
        assert len(span["steps_s"]) == share["stop"] - share["start"]
        assert sum(span["steps_s"]) <= span["compute_s"]


def test_nobody_without_the_token(web: Web) -> None:
    description = web("GET", "/openapi.json", token="").json()
    asked = 0
    for path, methods in description["paths"].items():
        filled = path.format(model="m", file="f", name="abc", id="abc")
        for method in methods:
            for token in ("", "wrong", web.token[:-1], "é" * 20):
                answer = web(method.upper(), filled, token=token.encode().decode("latin-1"))
                assert (answer.status_code == 200) if path == "/healthz" else (answer.status_code == 401), (path, method)
                asked += 1
    assert asked > 80
    assert web("GET", "/", token="").headers["content-security-policy"].startswith("default-src 'self'")
    assert web.token not in web("GET", "/", token="").text
    for name in ("/healthz", "/docs", "/static/app.js", "/static/swagger/swagger-ui-bundle.js"):
        assert web("GET", name, token="").status_code == 200
    assert "//" not in web("GET", "/docs", token="").text


def test_every_route_and_field_is_described(web: Web) -> None:
    description = web.get("/openapi.json")
    asked = 0
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            texts = [operation["summary"], operation["description"]]
            texts += [parameter["description"] for parameter in operation.get("parameters", ())]
            texts += [response["description"] for response in operation["responses"].values()]
            assert all(len(text) > 5 and "`" not in operation["summary"] for text in texts), (method, path)
            asked += 1
    assert asked > 25
    ours = {name: schema for name, schema in description["components"]["schemas"].items() if "Validation" not in name}
    assert len(ours) > 15
    for name, schema in ours.items():
        assert schema["description"], name
        assert [each for each, field in schema["properties"].items() if not field.get("description")] == [], name


def test_a_wrong_method_is_told_the_right_ones(web: Web) -> None:
    for path, allowed in (("/api/jobs", "GET, POST"), ("/api/jobs/abc", "DELETE, GET"), ("/", "GET"), ("/healthz", "GET")):
        answer = web("PATCH", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json() == {"detail": f"PATCH is not possible here; use {allowed}"}


def test_boards_are_drained_moved_and_lost(web: Web, photograph: Path) -> None:
    first = web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"]
    assert web("PUT", "/api/workers/w1/drain").status_code == 204
    wait_for("its sub-bundles elsewhere", lambda: web.ready() and not any("w1" in homes for homes in web.homes()))
    assert web.worker("w1")["drained"]
    assert web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"] == first
    assert web("DELETE", "/api/workers/w1/drain").status_code == 204
    wait_for("sub-bundles on it", lambda: web.ready() and any("w1" in homes for homes in web.homes()))
    assert web("PUT", "/api/placement", json={"homes": {"0": ["w2", "w1"]}}).status_code == 200
    wait_for("the copies", lambda: web.ready() and web.homes()[0] == {"w1", "w2"})
    assert web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"] == first
    for homes, said in (
        ({"0": ["nobody"]}, "'nobody'"),
        ({"99": ["w0"]}, "99"),
        ({"x": ["w0"]}, "sub-bundle 'x' does not exist"),
        ({"0": []}, "needs a worker"),
    ):
        refused = web("PUT", "/api/placement", json={"homes": homes})
        assert refused.status_code == 409
        assert said in refused.json()["detail"]
    assert web("PUT", "/api/placement", json={"homes": None}).status_code == 200
    wait_for("a placement of its own", lambda: web.ready() and all(len(homes) == 1 for homes in web.homes()))
    web.devices.freeze("w0")  # like a board whose cable was pulled: the hub notices after six seconds
    frozen = time.monotonic()
    wait_for("its silence", lambda: web.worker("w0")["seen_s"] > 1.5)
    assert web.worker("w0")["online"] or time.monotonic() > frozen + 3
    web.devices.processes["w0"].send_signal(signal.SIGCONT)
    web.devices.kill("w2")
    wait_for("its loss", lambda: not web.worker("w2")["online"])
    assert web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"] == first


def test_events_follow_what_happens(web: Web, photograph: Path) -> None:
    stream = Stream(web)
    assert [stream.next()[0] for _ in range(4)] == ["status", "jobs", "builds", "library"]
    job = web("POST", "/api/jobs?name=a", data=photograph.read_bytes()).json()["id"]
    states = []

    def is_done(kind: str, data: dict[str, str]) -> bool:
        if kind == "job" and data["id"] == job:
            states.append(data["state"])
        return states[-1:] == ["done"]

    stream.until(is_done)
    assert states == ["waiting", "running", "done"]
    web("PUT", "/api/models/m/a.onnx", data=b"nothing")
    stream.until(lambda kind, data: kind == "library" and [model["name"] for model in data["models"]] == ["m"])
    web.devices.kill("w1")
    stream.until(lambda kind, data: kind == "status" and not all(worker["online"] for worker in data["workers"]))
    stream.close()


def test_metrics_are_prometheus(web: Web, photograph: Path) -> None:
    before = web.get("/api/status")["answered"]
    web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))
    metrics = {family.name: family for family in text_string_to_metric_families(web("GET", "/metrics").text)}
    assert metrics["hyps_jobs_answered"].samples[0].value == before + 1
    assert {sample.labels["worker"]: sample.value for sample in metrics["hyps_worker_up"].samples} == {
        "w0": 1, "w1": 1, "w2": 1,
    }  # fmt: skip
    assert all(sample.value > 20e6 for sample in metrics["hyps_worker_resident_bytes"].samples)


def test_energy_is_in_the_status_and_in_the_metrics(start_web: Callable[..., Web], photograph: Path) -> None:
    """The hub, the manager and the board are on one machine: the meter's figure holds the board's estimate."""
    web = start_web(0, "--meter", "echo 5")
    web.devices.start_worker("w0", "--watts", "1.5,4")
    wait_for("the board", web.ready)
    web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))

    def is_known() -> bool:
        energy = web.get("/api/status")["energy"]
        return bool(energy and energy["static_joules"] is not None and len(energy["boards"]) == 2)

    def answered() -> bool:
        web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))
        return is_known()

    wait_for("the energy", answered)
    energy = web.get("/api/status")["energy"]
    sources = {board["name"]: (board["source"], board["estimated"], board["counted_with"]) for board in energy["boards"]}
    assert sources == {
        "manager and hub": ("meter 'echo 5'", False, None),
        "w0": ("estimated from --watts", True, "manager and hub"),
    }
    assert energy["unknown"] == []
    metrics = {family.name: family for family in text_string_to_metric_families(web("GET", "/metrics").text)}
    (watts,) = metrics["hyps_board_watts"].samples
    assert watts.labels == {"board": "manager and hub", "source": "meter 'echo 5'"}
    assert watts.value == pytest.approx(5, rel=0.01)
    assert metrics["hyps_boards_without_power"].samples[0].value == 0
    assert {sample.labels["part"] for sample in metrics["hyps_inference_joules"].samples} == {"static", "dynamic"}


def test_uploads_are_bounded_and_confined(idle_web: Web) -> None:
    web = idle_web
    spool = [*(web.library / "spool").iterdir()]
    answer = web("PUT", "/api/models/big/m.onnx", data=bytes(1_000_001))
    assert (answer.status_code, "1 MB at most" in answer.json()["detail"]) == (413, True)
    assert web("PUT", "/api/models/big/m.onnx", data=(bytes(100_000) for _ in range(30))).status_code == 413
    assert web.get("/api/models") == []
    assert [*(web.library / "spool").iterdir()] == spool
    for name in ("..", ".hidden", "a%2Fb", "a%5Cb", "%2e%2e", "a b", "x" * 101, "é"):
        assert web("PUT", f"/api/models/{name}/m.onnx", data=b"x").status_code in (404, 405, 422)
        assert web("PUT", f"/api/models/m/{name}", data=b"x").status_code in (404, 405, 422)
    assert web("PUT", "/api/models/m/m.onnx", data=b"").status_code == 400
    assert web("POST", "/api/models/m/builds", data=b"{" + b" " * 2_000_000 + b"}").status_code == 413
    assert web("POST", "/api/jobs", data=b"x").status_code == 409  # nothing is served
    assert web.get("/api/models") == []
    assert sorted(path.name for path in web.library.iterdir()) == ["bundles", "journals", "models", "spool"]


def test_a_hostile_model_costs_a_bounded_process(start_web: Callable[..., Web], root: Path) -> None:
    web = start_web(0, "--build-memory", "60MB", "--build-seconds", "600", bundle=False)
    web("PUT", "/api/models/bad/bad.onnx", data=b"\x08\x07 this is no model")
    built = web.done("builds", web("POST", "/api/models/bad/builds", json={"memory_bytes": 100_000_000}))
    assert (built["state"], built["plan"]) == ("failed", None)
    assert "needs more than 0.1 GB; start the manager with a larger --build-memory" in built["message"]
    assert web.get("/api/bundles") == []
    assert web("POST", "/api/models/bad/builds", json={"target": "nothing"}).status_code == 404
    assert web("POST", "/api/models/none/builds", json={"target": "rpi3b"}).status_code == 404
    assert web("POST", "/api/models/bad/builds", json={"workers": True}).status_code == 409  # no worker is connected
    web("PUT", "/api/models/bad/other.onnx", data=b"another")
    refused = web("POST", "/api/models/bad/builds", json={"target": "rpi3b"})
    assert (refused.status_code, "has 2 .onnx files" in refused.json()["detail"]) == (409, True)
    assert web("GET", "/healthz").json() == {"hub": True}


def test_hypscs_refusal_is_passed_on_and_a_build_is_cancelled(start_web: Callable[..., Web], root: Path) -> None:
    web = start_web(0, bundle=False)
    web("PUT", "/api/models/bad/bad.onnx", data=b"\x08\x07 this is no model")
    built = web.done("builds", web("POST", "/api/models/bad/builds", json={"memory_bytes": 100_000_000}))
    assert built["state"] == "failed"
    assert "\n" not in built["message"] and "Traceback" not in built["message"]
    assert "bad.onnx" in built["message"]
    web("PUT", "/api/models/net/net.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    started = web("POST", "/api/models/net/builds", json={"memory_bytes": 80_000_000})
    assert web("DELETE", f"/api/builds/{started.json()['id']}").status_code == 204
    assert web.done("builds", started)["state"] == "cancelled"
    built = web.done("builds", web("POST", "/api/models/net/builds", json={"memory_bytes": 80_000_000}))
    assert built["state"] == "done", built["message"]
    assert [bundle["name"] for bundle in web.get("/api/bundles")] == ["net"]


def test_without_a_bundle_boards_are_seen_and_one_can_be_chosen(start_web: Callable[..., Web], root: Path) -> None:
    web = start_web(2, bundle=False)
    wait_for("the boards", lambda: [worker["online"] for worker in web.get("/api/workers")] == [True, True])
    assert web.get("/api/status")["state"] == "idle"
    web("PUT", "/api/models/net/net.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    built = web.done("builds", web("POST", "/api/models/net/builds", json={"workers": True, "preprocess": "cifar10"}))
    assert built["plan"]["budget_bytes"] < 120_000_000
    assert web("PUT", "/api/served", json={"bundle": "net"}).status_code == 200
    wait_for("loaded sub-bundles", web.ready)


def test_clients_at_the_hub_are_served_as_well(web: Web, photograph: Path, hyps_run: HypsRun) -> None:
    client = hyps_run(web.devices.bundle, photograph, "--engine", web.devices.url, "--json")
    assert (client.returncode, client.stderr) == (0, "")
    job = web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))
    assert [each["score"] for each in json.loads(client.stdout)["top"]] == [each["score"] for each in job["top"]]


def test_bad_inputs_are_refused_in_a_line(web: Web) -> None:
    tensor = io.BytesIO()
    np.save(tensor, np.zeros((1, 3, 32, 31), np.float32))
    for data, said in ((b"no image", "is not a JPEG, PNG, WebP"), (tensor.getvalue(), "the bundle was compiled for")):
        job = web.done("jobs", web("POST", "/api/jobs", data=data))
        assert job["state"] == "failed"
        assert said in job["reason"]
        assert web("GET", f"/api/jobs/{job['id']}/outputs").status_code == 409
    assert not [path for path in (web.library / "spool").iterdir() if path.suffix == ".input"]


def test_tls_and_a_token_from_a_file(start_web: Callable[..., Web], tmp_path: Path) -> None:
    certificates = make_certificates(["127.0.0.1"])
    parts = (("cert", certificates.hub), ("key", certificates.hub_key), ("authority", certificates.authority))
    for name, content in parts:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "token").write_text("a token of my own\n")
    files: list[str | Path] = [
        "--tls-cert",
        tmp_path / "cert",
        "--tls-key",
        tmp_path / "key",
        "--token-file",
        tmp_path / "token",
    ]
    web = start_web(0, *files, bundle=False)
    assert web.url.startswith("https://")
    assert "a token of my own" not in web.devices.log("manager")
    assert web("GET", "/api/status", token="a token of my own", verify=str(tmp_path / "authority")).status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--web", "nonsense"], "--web nonsense is not an address"),
        (["--web", "127.0.0.1:0", "--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["--web", "127.0.0.1:0", "--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname"], "are not a certificate"),
        (["--web", "127.0.0.1:0", "--token-file", "/nothing"], "cannot read /nothing"),
        ([], "name the bundle's folder"),
    ],
)
def test_wrong_options_are_refused_in_one_line(bin_folder: Path, tmp_path: Path, options: list[str], said: str) -> None:
    command: list[str | Path] = [
        bin_folder / "hyps-manager",
        "serve",
        "--hub",
        "mqtt://127.0.0.1:1",
        "--library",
        tmp_path / "library",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_a_port_that_is_taken(bin_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        options: list[str | Path] = ["--hub", "mqtt://127.0.0.1:1", "--web", where, "--library", tmp_path / "library"]
        command: list[str | Path] = [bin_folder / "hyps-manager", "serve", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, f"cannot listen at {where}" in done.stderr) == (2, True), done.stderr


def test_sub_bundles_that_move_while_jobs_run_delay_nothing(start_web: Callable[..., Web], photograph: Path) -> None:
    """The jobs do not wait for the end of a lease, whatever the boards were computing."""
    web = start_web(3, "--workers", "3", "--lease", str(4 * PATIENCE_S))
    wait_for("loaded sub-bundles", web.ready)
    first = web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"]
    picture, jobs = photograph.read_bytes(), []
    for turn in range(6):
        jobs += [web("POST", "/api/jobs", data=picture) for _ in range(5)]
        homes = {str(number): [f"w{(number + turn) % 3}"] for number in range(len(web.homes()))}
        assert web("PUT", "/api/placement", json={"homes": homes}).status_code == 200
    assert [web.done("jobs", job)["top"] for job in jobs] == [first] * len(jobs)


def test_a_board_that_is_not_safe_is_given_no_inputs(start_web: Callable[..., Web]) -> None:
    web = start_web(2, "--workers", "2", "--safe", "w0")
    wait_for("loaded sub-bundles", web.ready)
    assert web.homes()[0] == {"w0"}
    refused = web("PUT", "/api/placement", json={"homes": {"0": ["w1"]}})
    assert (refused.status_code, "w1 cannot have step" in refused.json()["detail"]) == (409, True)
    assert web.homes()[0] == {"w0"}


def test_a_manager_that_was_killed_while_it_compiled_starts_again(start_web: Callable[..., Web], root: Path) -> None:
    web = start_web(0, bundle=False)
    web("PUT", "/api/models/net/net.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    started = web("POST", "/api/models/net/builds", json={"memory_bytes": 80_000_000, "dry_run": True})
    assert started.status_code == 202
    wait_for("the compiler", lambda: compilers(web.library))
    web.devices.kill("manager")
    wait_for("the compiler's end", lambda: not compilers(web.library))
    assert [*(web.library / "spool").iterdir()]
    again = start_web(0, bundle=False)
    assert [model["name"] for model in again.get("/api/models")] == ["net"]
    assert not [*(web.library / "spool").iterdir()]


def test_a_cancelled_build_leaves_nothing_and_an_older_bundle_stands(start_web: Callable[..., Web]) -> None:
    web = start_web(0, bundle=False)
    proto = classifier()
    web("PUT", "/api/models/net/net.onnx", data=proto.SerializeToString())
    options = {"memory_bytes": 80_000_000}
    assert web.done("builds", web("POST", "/api/models/net/builds", json=options))["state"] == "done"
    before = (web.library / "bundles/net/manifest.json").read_bytes()
    for _ in range(3):
        started = web("POST", "/api/models/net/builds", json={"memory_bytes": 90_000_000})
        time.sleep(0.4)
        web("DELETE", f"/api/builds/{started.json()['id']}")
        assert web.done("builds", started)["state"] == "cancelled"
    wait_for("the end of the compiler", lambda: not [*(web.library / "spool").iterdir()])
    assert [path.name for path in (web.library / "bundles").iterdir()] == ["net"]
    assert (web.library / "bundles/net/manifest.json").read_bytes() == before


def test_a_bundle_that_is_served_meanwhile_is_not_replaced(start_web: Callable[..., Web], root: Path) -> None:
    web = start_web(0, bundle=False)
    web("PUT", "/api/models/net/net.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    assert web.done("builds", web("POST", "/api/models/net/builds", json={"memory_bytes": 80_000_000}))["state"] == "done"
    before = (web.library / "bundles/net/manifest.json").read_bytes()
    started = web("POST", "/api/models/net/builds", json={"memory_bytes": 90_000_000})
    assert web("PUT", "/api/served", json={"bundle": "net"}).status_code == 200
    ended = web.done("builds", started)
    assert (ended["state"], "bundle net is served" in ended["message"]) == ("failed", True)
    assert (web.library / "bundles/net/manifest.json").read_bytes() == before
    assert web("DELETE", "/api/bundles/net").status_code == 409


def test_a_bundle_whose_folder_cannot_be_its_name(bin_folder: Path, devices: Devices, tmp_path: Path) -> None:
    shutil.copytree(devices.bundle, tmp_path / "a name")
    for name, said in (("a name", "rename the folder"), ("nothing", "manifest.json")):
        options: list[str | Path] = [
            "--hub",
            "mqtt://127.0.0.1:1",
            "--web",
            "127.0.0.1:0",
            "--library",
            tmp_path / "library",
        ]
        command: list[str | Path] = [bin_folder / "hyps-manager", "serve", tmp_path / name, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


def test_labels_that_were_uploaded_name_the_classes(start_web: Callable[..., Web], root: Path, photograph: Path) -> None:
    web = start_web(1, bundle=False)
    web("PUT", "/api/models/net/net.onnx", data=(root / "models/cifar10_vgg.onnx").read_bytes())
    web("PUT", "/api/models/net/labels.txt", data=(root / "models/cifar10_labels.txt").read_bytes())
    options = {"memory_bytes": 80_000_000, "preprocess": "cifar10"}
    built = web.done("builds", web("POST", "/api/models/net/builds", json=options))
    assert built["state"] == "done", built["message"]
    web("PUT", "/api/served", json={"bundle": "net"})
    wait_for("loaded sub-bundles", web.ready)
    job = web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))
    labels = (root / "models/cifar10_labels.txt").read_text().split()
    assert [scored["label"] for scored in job["top"]] == [labels[scored["index"]] for scored in job["top"]]


def test_scores_that_are_not_finite_fail_the_job(start_web: Callable[..., Web]) -> None:
    web = start_web(1, bundle=False)
    nodes = [node("Sqrt", "x", "roots"), node("Softmax", "roots", "y")]
    web("PUT", "/api/models/net/net.onnx", data=model(nodes, [value("x", 1, 4)], [value("y", 1, 4)]).SerializeToString())
    assert web.done("builds", web("POST", "/api/models/net/builds", json={"memory_bytes": 80_000_000}))["state"] == "done"
    web("PUT", "/api/served", json={"bundle": "net"})
    wait_for("loaded sub-bundles", web.ready)
    tensor = io.BytesIO()
    np.save(tensor, np.full((1, 4), -1, np.float32))
    job = web.done("jobs", web("POST", "/api/jobs", data=tensor.getvalue()))
    assert (job["state"], job["top"]) == ("failed", [])
    assert "the scores in output 'y' are not all numbers" in job["reason"]
    assert web.get("/api/jobs")[0]["id"] == job["id"]


@pytest.mark.parametrize("name", ["", ".", "..", "../models", "a/b", "-x", "a b", "ä", "a" * 101])
def test_names_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    library = Library(tmp_path, None, limit_bytes=1)
    for call in (library.model, library.bundle, library.writable, library.delete_model, library.delete_bundle):
        with pytest.raises(WebFault, match="1 to 100 letters"):
            call(name)


def compilers(library: Path) -> list[Path]:
    """Return the processes that compile into this library."""
    paths = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [path for path in paths if str(library / "spool").encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
