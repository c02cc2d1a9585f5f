"""Test that tensors of types that numpy lacks travel between workers, by MQTT and by Dask, and that others are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from hyps.compiler.validate import random_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.dask.tasks import SubBundleStore, Ticket
from hyps.runtime.errors import BundleError, InputError
from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import memory_of
from hyps.runtime.execution.tensor import dtype_of, shape_of
from tests.compiler.conftest import Bundle, Compile, compiled  # noqa: F401
from tests.compiler.test_odd_types import KINDS, halved, quantised
from tests.runtime.cluster.devices import Devices

CROSSING = (*KINDS, "BFLOAT16")


def made(kind: str, compile_model: Compile) -> Bundle:
    """Compile a model in which a tensor of this type crosses a cut."""
    model = halved() if kind == "BFLOAT16" else quantised(TensorProto.DataType.Value(kind))
    return compile_model(model, split="layers")


@pytest.mark.parametrize("kind", ["BFLOAT16", "INT4", "FLOAT8E4M3FN"])
def test_workers_at_a_hub_give_the_local_runs_bits(kind: str, compiled: Compile, devices: Devices) -> None:  # noqa: F811
    devices.bundle = made(kind, compiled).folder
    (sample,) = random_inputs(read_manifest(devices.bundle), 1)
    devices.start_manager("--workers", "3", "--journal", str(devices.bundle.parent / "odd.journal"))
    for number in range(3):
        devices.start_worker(f"w{number}")
    devices.wait_for_sub_bundles(workers=2)
    with closing(devices.engine()) as engine:
        found = run_one(engine, sample)["y"]
    assert found.tobytes() == load_executor(devices.bundle, threads=1).run(sample)["y"].tobytes()


@pytest.mark.parametrize("kind", CROSSING)
def test_tasks_of_dask_give_the_local_runs_bits(kind: str, compiled: Compile, tmp_path: Path) -> None:  # noqa: F811
    bundle = made(kind, compiled).folder
    manifest = read_manifest(bundle)
    assert any(record.dtype not in ("float32", "int64") for record in manifest.tensors.values())
    held: dict[str, Mapping[str, NDArray[Any]]] = {}
    (sample,) = random_inputs(manifest, 1)
    held["input"] = sample
    store = SubBundleStore(tmp_path / "cache", threads=1)
    with closing(FileServer("127.0.0.1", tls=False)) as server:
        for number, part in enumerate(
            sub_bundles(manifest, [range(i, i + 1) for i in range(len(manifest.steps))], manifest.budget_bytes)
        ):
            (result,) = store.compute(ticket(server, bundle, part), [[each] for each in held.values()])
            assert not isinstance(result, InputError)
            held[f"step {number}"] = result
    (found,) = (each["y"] for each in held.values() if "y" in each)
    assert found.tobytes() == load_executor(bundle, threads=1).run(sample)["y"].tobytes()


def ticket(server: FileServer, bundle: Path, part: Manifest) -> Ticket:
    document = encode_manifest(part)
    sha256 = hashlib.sha256(document).hexdigest()
    files: dict[str, Path | bytes] = {sha256: document, **{file.sha256: bundle / file.path for file in part.files}}
    orders = Orders(epoch=0, url=server.url, token=server.grant(sha256, files))
    return Ticket(orders=orders, order=SubBundleOrder(number=0, sha256=sha256, size_bytes=len(document)), inputs=1)


@pytest.mark.parametrize("shape", [(3, 5), (), (2, 0, 3), (1,)], ids=str)
@pytest.mark.parametrize("dtype", [*STORAGE_TYPES, *PACKED_TYPES])
def test_bytes_become_the_same_tensor(dtype: str, shape: tuple[int, ...]) -> None:
    record = TensorRecord(dtype=dtype, shape=shape)
    data = bytes(number % 2 for number in range(record.nbytes))
    for given in (bytearray(data), np.frombuffer(data, np.uint8)):
        value = to_value(given, record)
        assert (dtype_of(value), shape_of(value)) == (dtype, shape)
        assert bytes(memory_of(value)) == data


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("words", TensorRecord(dtype="object", shape=(1,)), "tensor 'words' is of type object, which cannot be sent"),
        ("z", TensorRecord(dtype="complex64", shape=(1,)), "tensor 'z' is of type complex64, which cannot be sent"),
        (
            "big",
            TensorRecord(dtype="float32", shape=(300_000_000,)),
            "tensor 'big' has 1,200.0 MB, and a hub passes 1,006.6 MB",
        ),
        ("n" * 5000, TensorRecord(dtype="float32", shape=(1,)), "has a name or shape that is too long to be sent"),
    ],
    ids=["strings", "complex", "large", "long name"],
)
def test_what_cannot_be_sent_is_refused_by_name(manifest: Manifest, name: str, record: TensorRecord, reason: str) -> None:
    check_sendable(manifest)
    with pytest.raises(BundleError, match="compile it with fewer cuts") as refusal:
        check_sendable(msgspec.structs.replace(manifest, tensors={**manifest.tensors, name: record}))
    assert reason in str(refusal.value)


def test_the_client_refuses_before_it_looks_for_the_hub(bundle: Path, manifest: Manifest) -> None:
    tensors = {**manifest.tensors, "hidden": TensorRecord(dtype="object", shape=(1, 8))}
    (bundle / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, tensors=tensors)))
    with pytest.raises(BundleError, match="tensor 'hidden' is of type object"):
        ClusterEngine(bundle, "mqtt://127.0.0.1:1", None)


def test_inputs_are_given_as_numpy_arrays(compiled: Compile) -> None:  # noqa: F811
    """The types of a step's inputs are checked, whether numpy knows them or not."""
    bundle = made("BFLOAT16", compiled).folder
    executor = load_executor(bundle, threads=1)
    (sample,) = random_inputs(executor.manifest, 1)
    wrong = to_value(bytearray(4 * 512 * 2), TensorRecord(dtype="bfloat16", shape=(4, 512)))
    with pytest.raises(InputError, match=r"input 'x' is bfloat16\[4, 512\]"):
        executor.run({**sample, "x": wrong})


def test_a_bundle_without_room_for_a_workers_numpy_is_refused(manifest: Manifest) -> None:
    target = msgspec.structs.replace(manifest.target, interface="c")
    with pytest.raises(BundleError, match="which workers do not use; compile again without --interface c"):
        check_sendable(msgspec.structs.replace(manifest, target=target))
