"""Test that workers read the rows of a table that an inference asks for, at a hub and by Dask."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.dask.tasks import Samples, SubBundleStore
from hyps.runtime.errors import InputError
from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Bundle, Compile, compiled  # noqa: F401
from tests.compiler.tables import ROWS, ids, lookup
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.test_sent_types import ticket


@pytest.fixture
def bundle(compiled: Compile) -> Bundle:  # noqa: F811
    made = compiled(lookup(), budget_bytes=60_000_000, split="layers")
    assert made.compiled.manifest.steps[0].rows
    return made


def test_workers_at_a_hub_give_the_local_runs_bits(bundle: Bundle, devices: Devices) -> None:
    devices.bundle = bundle.folder
    devices.start_manager("--workers", "2", "--journal", str(bundle.folder.parent / "journal"))
    for number in range(2):
        devices.start_worker(f"w{number}")
    devices.wait_for_sub_bundles(workers=2)
    wrong = ids()
    wrong[0, 0] = ROWS
    with closing(devices.engine()) as engine:
        with pytest.raises(InputError, match=f"tensor 'ids' holds the index {ROWS}"):
            run_one(engine, {"ids": wrong})
        found = run_one(engine, {"ids": ids()})["y"]
    np.testing.assert_array_equal(found, load_executor(bundle.folder, threads=1).run({"ids": ids()})["y"])


def test_tasks_of_dask_give_the_local_runs_bits(bundle: Bundle, tmp_path: Path) -> None:
    manifest = bundle.compiled.manifest
    store = SubBundleStore(tmp_path / "cache", threads=1)
    given: Samples = [{"ids": ids()}]
    with closing(FileServer("127.0.0.1", tls=False)) as server:
        for part in sub_bundles(manifest, [range(1), range(1, len(manifest.steps))], manifest.budget_bytes):
            given = store.compute(ticket(server, bundle.folder, part), [given])
    (found,) = given
    assert not isinstance(found, InputError)
    np.testing.assert_array_equal(found["y"], load_executor(bundle.folder, threads=1).run({"ids": ids()})["y"])
