"""Send a manager rests of inferences that are none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.client_messages import Submit
from hyps.runtime.cluster.protocol.frames import Key, encode_tensor
from hyps.runtime.cluster.protocol.messages import encode_message
from hyps.runtime.execution.session import memory_of
from tests.exits import write_table
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.offloads import OFFLOAD_AT, Arrays, control, linked, reports, taken
from tests.waiting import PATIENCE_S, wait_for


def hostile(manifest: Any, job: str, tensors: Mapping[str, NDArray[Any]], names: list[str]) -> list[bytes]:
    """Return the frames of a rest that has other tensors than it should."""
    key = Key(job=job, sub_bundle=-1, attempt=0)
    return [frame for name in names for frame in encode_tensor(key, name, manifest.tensors[name], memory_of(tensors[name]))]


def test_hostile_rests_are_refused(edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path) -> None:
    """Exits that are none, tensors of other places, the input, and other types: the next answer is right all the same."""
    edge.start(1)
    manifest = read_manifest(edge.bundle)
    sha256 = subprocess.run(["sha256sum", edge.bundle / "manifest.json"], capture_output=True, text=True, check=True)
    bundle = sha256.stdout.split()[0]
    replies: list[dict[str, Any]] = []

    def take(topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        replies.append(msgspec.json.decode(payload))

    connection = Connection(
        Join(hub=edge.url),
        "c9",
        received=take,
        connected=lambda: connection.subscribe(["hyps/clients/c9/result"]),
    )
    connection.open()
    with closing(connection):
        for number in (4, 5, 64):
            connection.publish(
                "hyps/clients/c9/submit", encode_message(Submit(job=f"{number:032x}", bundle=bundle, after_exit=number))
            )
        wait_for("refusals", lambda: len(replies) == 3)
        assert all(reply["type"] == "refused" for reply in replies)
        assert replies[0]["reason"] == "no inference goes on behind exit 4: the bundle has 4 exits"
        for strange in (0, 65, -1, "1", 1 << 70):
            text = json.dumps({"type": "submit", "job": "a" * 32, "bundle": bundle, "after_exit": strange})
            connection.publish("hyps/clients/c9/submit", text.encode())
        job = "b" * 32
        with closing(linked(edge.bundle, edge.url)) as tier:
            policy = write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[0])
            taken(control(edge.bundle, tier, policy), edge.bundle, samples, expected)
        connection.publish("hyps/clients/c9/submit", encode_message(Submit(job=job, bundle=bundle, after_exit=1)))
        wait_for("the question for tensors", lambda: len(replies) == 4)
        assert replies[3] == {"type": "send", "job": job, "compress": False}
        zeros = {name: np.zeros(record.shape, record.dtype) for name, record in manifest.tensors.items()}
        others = [name for name in manifest.tensors if name not in rest_inputs(manifest, 1)]
        assert "x" in others
        for frame in hostile(manifest, job, zeros, others):
            connection.publish("hyps/clients/c9/submit", frame)
        (live,) = rest_inputs(manifest, 1)
        frame = hostile(manifest, job, zeros, [live])[0]
        connection.publish("hyps/clients/c9/submit", frame.replace(b"float32", b"float64"))
        wait_for("the rejections", lambda: sum(_rejected(edge).values()) >= len(others) + 6)
        assert {"unknown tensor", "bad message", "wrong type"} <= _rejected(edge).keys()
        with closing(linked(edge.bundle, edge.url)) as tier:
            policy = write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[0])
            found = reports(control(edge.bundle, tier, policy), edge.bundle, samples[:3], expected[:3])
        assert all(report.offload and report.offload.at for report in found)
    assert "Traceback" not in edge.log("manager") + edge.log("w0")


def _rejected(devices: Devices) -> dict[str, int]:
    command = devices.command("hyps-manager", "status", "--hub", devices.url, "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])["rejected"]
    return found
