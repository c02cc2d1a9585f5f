"""Test coded groups with real processes: workers that are killed, slow or wrong, exact results, and too few boards."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.engine import InferenceResult, in_memory
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.codes_bundle import compile_coded
from tests.runtime.cluster.devices import LIAR, SLOW_AT_SHARDS, Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S, wait_for

COUNT = 40
#: The largest error of a score, as a part of the largest score: later layers enlarge a decoded value's error little.
TOLERANCE = 1e-5
Pictures = list[dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    generator = np.random.default_rng(18)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(COUNT)]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """Return a bundle whose conv4_1 has two shards and one parity shard."""
    return compile_coded(root, bin_folder, tmp_path_factory.mktemp("once") / "bundle", 1)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """Return a bundle whose conv4_1 has two shards and two parity shards."""
    return compile_coded(root, bin_folder, tmp_path_factory.mktemp("twice") / "bundle", 2)


@pytest.fixture
def cluster(bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Callable[[Path], Devices]]:
    """Return a function that starts a hub for a bundle."""
    with ExitStack() as stack:

        def start(bundle: Path) -> Devices:
            devices = Devices(stack, tmp_path, bundle, bin_folder, mosquitto, Settings())
            devices.start_hub()
            return devices

        yield start


def check(devices: Devices, pictures: Pictures, found: list[InferenceResult]) -> list[bool]:
    """Check that all answers came once, in order and right; return which are bit for bit the local engine's."""
    assert [done.number for done in found] == [*range(len(pictures))]
    assert not any(done.error for done in found)
    executor = load_executor(devices.bundle)
    exact = []
    for picture, done in zip(pictures, found, strict=True):
        right, values = executor.run(picture)["scores"], done.outputs["scores"]
        assert np.abs(values - right).max() <= TOLERANCE * np.abs(right).max()
        exact.append(values.tobytes() == right.tobytes())
        assert exact[-1] or done.decoded == ("conv4_1",)
        assert done.error_bound == (read_manifest(devices.bundle).codes[0].error_bound if done.decoded else 0)
    return exact


def homes(devices: Devices, part: str) -> list[str]:
    """Return the workers that got a shard of conv4_1 first, by the manager's lines."""
    return re.findall(rf"^sub-bundle \d+ on (\w+): \S*conv4_1-{part}", devices.log("manager"), re.MULTILINE)


def stream(
    devices: Devices, pictures: Pictures, then: Callable[[], None], after: int = 4, *, exact: bool = False
) -> list[InferenceResult]:
    """Return the results of a stream; ``then`` is called after so many answers."""
    with closing(devices.engine(exact=exact)) as engine:
        results = engine.run(in_memory(pictures))
        found = [next(results) for _ in range(after)]
        then()
        return [*found, *results]


def status_text(devices: Devices, *options: str) -> str:
    command = devices.command("hyps-manager", "status", "--hub", devices.url, *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout


def status(devices: Devices) -> dict[str, Any]:
    (line,) = status_text(devices, "--json").splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_killed_workers_shard_is_decoded(cluster: Callable[[Path], Devices], once: Path, pictures: Pictures) -> None:
    """Nobody loads anything meanwhile: the others go on as they were."""
    devices = cluster(once)
    devices.start(3, "--tolerate", "1", "--hedge", "never")
    assert len({*homes(devices, "")}) == 3  # a worker for each of the three
    assert "any 1 board may be lost" in devices.log("manager")
    (lost,) = homes(devices, "shard1of2")[:1]
    found = stream(devices, pictures, lambda: devices.kill(lost))
    check(devices, pictures, found)
    assert sum(bool(done.decoded) for done in found) >= COUNT - 16  # those after the kill
    assert "must move" in devices.log("manager")
    held = [devices.log(name).count("holds sub-bundle") for name in ("w0", "w1", "w2") if name != lost]
    assert held == [len(re.findall(rf"^sub-bundle \d+ on {name}:", devices.log("manager"), re.M)) for name in
                    ("w0", "w1", "w2") if name != lost]  # fmt: skip


def test_exact_results_wait_for_the_real_shard(cluster: Callable[[Path], Devices], once: Path, pictures: Pictures) -> None:
    devices = cluster(once)
    devices.start_manager("--workers", "3", "--exact")
    for name in ("w0", "w1", "w2"):
        devices.start_worker(name)
    devices.wait_for_sub_bundles(workers=2)  # the pipeline's
    assert "parity" not in devices.log("manager")
    found = stream(devices, pictures, lambda: devices.kill(homes(devices, "shard1of2")[0]))
    assert all(check(devices, pictures, found))
    assert not any(done.decoded for done in found)


@pytest.mark.parametrize("hedge", ["late", "always"])
def test_a_slow_worker_is_decoded_around(
    cluster: Callable[[Path], Devices], once: Path, pictures: Pictures, hedge: str
) -> None:
    """It is not lost, only frozen for a while; what it answers later is dropped without harm."""
    devices = cluster(once)
    devices.settings = Settings(keepalive_s=4 * PATIENCE_S)
    devices.start(3, "--straggler-ms", "200", "--tolerate", "1", "--hedge", hedge)
    (slow,) = homes(devices, "shard1of2")
    found = stream(devices, pictures, lambda: devices.freeze(slow))
    check(devices, pictures, found)
    assert sum(bool(done.decoded) for done in found) >= COUNT - 16
    devices.processes[slow].send_signal(signal.SIGCONT)
    check(devices, pictures, stream(devices, pictures, lambda: None))
    assert "is gone" not in devices.log("manager")


def test_a_straggler_is_spared_what_nobody_needs(cluster: Callable[[Path], Devices], once: Path, pictures: Pictures) -> None:
    """It computes the input that it has begun, and drops the next, as that was decoded meanwhile; none is sent."""
    devices = cluster(once)
    devices.start_manager("--workers", "3", "--tolerate", "1", "--hedge", "always")
    for name in ("w0", "w1"):
        devices.start_worker(name)
    devices.start_program("w2", SLOW_AT_SHARDS)
    devices.wait_for_sub_bundles(workers=3)
    check(devices, pictures, stream(devices, pictures, lambda: None))
    wait_for("its last confirmation", lambda: [line["leases"] for line in status(devices)["workers"]] == [0, 0, 0])
    codes = status(devices)["codes"]
    computed = devices.log("w2").count("computes")
    assert codes["spared"]["w2"] > 0
    assert codes["withdrawn"]["w2"] - codes["spared"]["w2"] in (computed, computed - 1)  # the last may be in time
    assert "w2 is set aside" not in devices.log("manager")
    assert not {"never asked for", "not withdrawn", "bad message"} & {*status(devices)["rejected"]}


def test_a_wrong_shard_is_named_and_set_aside(cluster: Callable[[Path], Devices], twice: Path, pictures: Pictures) -> None:
    """With two parity shards, four answers show which of them is wrong; without voting."""
    devices = cluster(twice)
    devices.start_manager("--workers", "4", "--tolerate", "1", "--safe", "w0,w1,w2")
    for name in ("w0", "w1", "w2"):
        devices.start_worker(name)
    devices.start_program("w3", LIAR)
    devices.wait_for_sub_bundles(workers=4)
    found = stream(devices, pictures, lambda: None)
    check(devices, pictures, found)
    wait_for("its name", lambda: "w3 is set aside: its answer for conv4_1" in devices.log("manager"))
    assert not re.search("w[012] is set aside", devices.log("manager"))


def test_one_client_gets_exact_results(
    cluster: Callable[[Path], Devices],
    once: Path,
    hyps_run: Callable[..., subprocess.CompletedProcess[str]],
    pictures: Pictures,
    tmp_path: Path,
) -> None:
    """The manager decodes for others meanwhile. When a shard's worker is lost, another loads it as soon as it is needed."""
    devices = cluster(once)
    devices.start(3, "--tolerate", "1", "--hedge", "always")
    check(devices, pictures, stream(devices, pictures, lambda: None))
    assert status(devices)["codes"]["decoded"]

    def ask_exactly() -> None:
        found = stream(devices, pictures[:8], lambda: None, exact=True)
        assert all(check(devices, pictures[:8], found))
        assert not any(done.decoded for done in found)

    check(devices, pictures, stream(devices, pictures, ask_exactly))
    (lost,) = homes(devices, "shard1of2")
    check(devices, pictures, stream(devices, pictures, lambda: devices.kill(lost)))
    np.savez(tmp_path / "one.npz", image=pictures[0]["image"])
    run = (once, tmp_path / "one.npz", "--engine", devices.url, "--json")
    assert "decoded" not in json.loads(hyps_run(*run, "--exact").stdout)
    ask_exactly()


@pytest.mark.parametrize("is_checked", [True, False])
def test_votes_and_codes_find_a_liar(
    cluster: Callable[[Path], Devices], once: Path, twice: Path, pictures: Pictures, is_checked: bool
) -> None:
    """Two parity shards replace a vote of three; shards with one are voted on, as everything else is."""
    bundle = twice if is_checked else once
    devices = cluster(bundle)
    devices.start_manager("--workers", "5", "--vote", "3")
    for number in range(4):
        devices.start_worker(f"w{number}")
    devices.start_program("w4", LIAR)
    devices.wait_for_sub_bundles(workers=5)
    log = devices.log("manager")
    if is_checked:
        assert "conv4_1: its parity shards find wrong results, without votes" in log
        assert (len(homes(devices, "shard")), len(homes(devices, "parity"))) == (2, 2)
    else:
        assert "conv4_1: 3 workers vote on each shard, as its 1 parity shard cannot replace the vote" in log
        assert "compile it with --code conv4_1=2 for that" in log
        assert not homes(devices, "parity")
    check(devices, pictures, stream(devices, pictures, lambda: None))
    wait_for("its name", lambda: "w4 is set aside" in devices.log("manager"))
    assert not re.search("w[0123] is set aside", devices.log("manager"))


def test_too_few_boards_say_what_is_tolerated(cluster: Callable[[Path], Devices], once: Path, pictures: Pictures) -> None:
    devices = cluster(once)
    devices.start(2, "--tolerate", "1")
    log = devices.log("manager")
    assert re.search(r"w\d may not be lost: conv4_1 would have to move", log)
    assert "3 boards are needed so that any 1 board may be lost; 2 boards have steps" in log
    check(devices, pictures[:4], stream(devices, pictures[:4], lambda: None, after=0))


def test_the_flag_survives_the_manager(cluster: Callable[[Path], Devices], once: Path, pictures: Pictures) -> None:
    """A manager that is killed between decoding and answering still says what was decoded."""
    devices = cluster(once)
    devices.start(3, "--tolerate", "1", "--hedge", "always")

    def restart() -> None:
        devices.kill("manager")
        devices.start_manager("--workers", "3", "--tolerate", "1", "--hedge", "always")

    check(devices, pictures, stream(devices, pictures, restart))


def test_json_says_what_was_decoded(
    cluster: Callable[[Path], Devices],
    once: Path,
    hyps_run: Callable[..., subprocess.CompletedProcess[str]],
    pictures: Pictures,
    tmp_path: Path,
) -> None:
    """The worker is frozen and not killed: a lost one would be replaced while nothing is computed."""
    devices = cluster(once)
    devices.settings = Settings(keepalive_s=4 * PATIENCE_S)
    devices.start(3, "--tolerate", "1", "--straggler-ms", "2000")
    np.savez(tmp_path / "one.npz", image=pictures[0]["image"])
    run = (once, *[tmp_path / "one.npz"] * 6, "--engine", devices.url)
    plain = [json.loads(line) for line in hyps_run(*run, "--json").stdout.splitlines()]
    assert not any("decoded" in each for each in plain)
    (slow,) = homes(devices, "shard2of2")
    devices.freeze(slow)
    lines = [json.loads(line) for line in hyps_run(*run, "--json").stdout.splitlines()]
    bound = read_manifest(once).codes[0].error_bound
    assert [(each["decoded"], each["error_bound"]) for each in lines] == [(["conv4_1"], bound)] * 6
    assert re.search(r"conv4_1 was decoded: right within \d\.\de-06, not bit for bit", hyps_run(*run).stdout)

    wait_for("the count", lambda: status(devices)["codes"]["decoded"] == {"conv4_1": 12})
    codes = status(devices)["codes"]
    assert codes["wrong"] == {}
    assert [*codes["late"]] == [slow]
    shown = status_text(devices)
    assert "decoded: conv4_1 12" in shown
    assert "any 1 board may be lost" in shown
