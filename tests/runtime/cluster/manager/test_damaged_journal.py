"""Test that a job whose stored tensor was damaged ends with a reason, and that the manager goes on."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.broker.join import Join, encode_join
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.manager.generations import encode_plan
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.protocol.frames import digest_of
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.devices import Devices

JOB, OTHER = "1" * 32, "2" * 32
LARGE = bytes(1_000_000)


@pytest.mark.parametrize("state", ["open", "done"])
def test_the_job_fails_with_a_reason_and_can_be_submitted_again(devices: Devices, tmp_path: Path, state: str) -> None:
    """The damaged tensor is the input of a job that is open, or the result of one that is done."""
    manifest = read_manifest(devices.bundle)
    picture = np.ones((1, 3, 32, 32), np.float32)
    scores = load_executor(devices.bundle).run({"image": picture})["scores"]
    bundle_sha256 = hashlib.sha256((devices.bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    with closing(Journal(tmp_path / "journal")) as journal:
        (digest,) = journal.accept(JOB, "me", {"image": picture.tobytes()}).values()
        held = Placement(runs=(range(len(manifest.steps)),), homes=(("w0",),), reasons=("",))
        journal.set_plan(bundle_sha256, encode_plan(held, {0: (0,)}, 0))
        if state == "done":
            digest = digest_of(scores.tobytes())
            journal.keep(JOB, "scores", digest, scores.tobytes())
            journal.finish(JOB, "done")
    with closing(sqlite3.connect(tmp_path / "journal/journal.sqlite")) as base:
        (data,) = base.execute("select data from small where digest = ?", (digest,)).fetchone()
        base.execute("update small set data = ? where digest = ?", (bytes([data[0] ^ 1]) + data[1:], digest))
        base.commit()
    devices.start(1)
    (tmp_path / "me.join").write_bytes(encode_join(Join(hub=devices.url, name="me")))
    with closing(ClusterEngine(devices.bundle, None, tmp_path / "me.join")) as engine:
        (failed,) = engine.run(in_memory([{"image": picture}]), job=JOB)
        assert "was changed; submit the input again" in str(failed.error)
        (again,) = engine.run(in_memory([{"image": picture}]), job=OTHER)
    assert again.error is None
    assert again.outputs["scores"].tobytes() == scores.tobytes()
    assert "Traceback" not in devices.log("manager")


def test_a_damaged_file_is_written_again_by_the_next_job(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        (digest,) = journal.accept(JOB, "c", {"x": LARGE}).values()
        (tmp_path / "tensors" / digest.hex()).write_bytes(LARGE[:-1] + b"x")
        with pytest.raises(DamagedTensor, match="was changed"):
            journal.read(digest)
        journal.accept(OTHER, "c", {"x": LARGE})
        assert journal.read(digest) == LARGE
