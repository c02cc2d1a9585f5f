"""A bundle on a real Dask scheduler and real workers gives the local run's bits, whichever process is killed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.cluster.mosquitto import free_port
from tests.runtime.dask.farm import MEMORY_BYTES, Farm, results
from tests.waiting import PATIENCE_S, wait_for

Command = Callable[..., subprocess.CompletedProcess[str]]
COUNT = 60


@pytest.fixture
def farm(tmp_path: Path, bin_folder: Path) -> Iterator[Farm]:
    """Yield a cluster with three workers."""
    with ExitStack() as stack:
        made = Farm(stack, tmp_path, bin_folder)
        made.start_scheduler()
        for name in ("w0", "w1", "w2"):
            made.start_worker(name)
        yield made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tensors."""
    folder = tmp_path_factory.mktemp("tensors")
    generator = np.random.default_rng(3)
    for number in range(COUNT):
        np.save(folder / f"{number:03d}.npy", generator.standard_normal((1, 3, 32, 32)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: Path, hyps_run: Command) -> list[object]:
    """Return the local run's classes and scores."""
    return [(each["input"], each["top"]) for each in results(hyps_run(layers, pictures, "--json"))]


def test_the_local_runs_bits(farm: Farm, layers: Path, hyps_run: Command, photograph: Path, tmp_path: Path) -> None:
    here = hyps_run(layers, photograph, "--save", tmp_path / "here.npz")
    there = hyps_run(layers, photograph, "--engine", farm.url, "--save", tmp_path / "there.npz")
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout.splitlines()[:-1] == here.stdout.splitlines()[:-1]
    with np.load(tmp_path / "here.npz") as one, np.load(tmp_path / "there.npz") as other:
        assert {name: one[name].tobytes() for name in one} == {name: other[name].tobytes() for name in other}


def test_files_are_fetched_once(farm: Farm, layers: Path, hyps_run: Command, photograph: Path) -> None:
    """One of the workers on a machine fetches them; the next run finds them."""
    hyps_run(layers, photograph, "--engine", farm.url)
    before = {path.name: path.stat().st_mtime_ns for path in (farm.cache / "files").iterdir()}
    weights = [step["weights"] for step in json.loads((layers / "manifest.json").read_text())["steps"] if step["weights"]]
    assert {weight["sha256"] for weight in weights} <= before.keys()
    assert hyps_run(layers, photograph, "--engine", farm.url).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in (farm.cache / "files").iterdir()} == before


def test_a_worker_is_killed(
    farm: Farm, layers: Path, bin_folder: Path, pictures: Path, expected: list[object], tmp_path: Path
) -> None:
    """Every input is answered once and correctly; a worker's memory stays within what it stated."""
    output = tmp_path / "results.jsonl"
    command: list[str | Path] = [bin_folder / "hyps-run", layers, pictures, "--engine", farm.url, "--output", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for("some answers", lambda: output.exists() and output.read_bytes().count(b"\n") >= 3)
        farm.kill("w1")
        said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, *said) == (0, "", "")
    assert kept(output) == expected
    assert max(farm.resident_bytes(name) for name in ("w0", "w2")) < MEMORY_BYTES


def test_a_client_is_killed_and_goes_on(
    farm: Farm, layers: Path, bin_folder: Path, hyps_run: Command, pictures: Path, expected: list[object], tmp_path: Path
) -> None:
    """Answered inputs are not computed again, except the one whose line is incomplete."""
    output = tmp_path / "results.jsonl"
    options: list[str | Path] = [layers, pictures, "--engine", farm.url, "--output", output]
    with subprocess.Popen([bin_folder / "hyps-run", *options]) as process:
        wait_for("some answers", lambda: output.exists() and output.read_bytes().count(b"\n") >= 3)
        process.kill()
    before = output.read_bytes()
    assert before.count(b"\n") < COUNT
    output.write_bytes(before + before[:50])
    time.sleep(0.2)
    done = hyps_run(*options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert output.read_bytes().startswith(before)
    assert kept(output) == expected
    after = output.read_bytes()
    assert hyps_run(*options).returncode == 0
    assert output.read_bytes() == after


def kept(output: Path) -> list[object]:
    """Return the inputs in an archive, with their classes and scores."""
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    return [(each["input"], each["top"]) for each in lines]


def test_workers_of_this_machines_own(layers: Path, hyps_run: Command, photograph: Path) -> None:
    with socket.socket() as taken:  # the default port of Dask's dashboard
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another process may have it already
            taken.bind(("", 8787))
            taken.listen()
        there = hyps_run(layers, photograph, "--engine", "dask://local")
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout.splitlines()[:-1] == hyps_run(layers, photograph).stdout.splitlines()[:-1]


def test_with_certificates(
    layers: Path, hyps_run: Command, photograph: Path, tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and files go by TLS; a client without a certificate is refused."""
    with ExitStack() as stack:
        farm = Farm(stack, tmp_path, bin_folder, tls=True)
        farm.start_scheduler()
        farm.start_worker("w0")
        for name, value in farm.environment.items():
            if name.startswith("DASK_"):
                monkeypatch.setenv(name, value)
        there = hyps_run(layers, photograph, "--engine", farm.url)
        assert (there.returncode, there.stderr) == (0, "")
        assert there.stdout.splitlines()[:-1] == hyps_run(layers, photograph).stdout.splitlines()[:-1]
        for name in farm.environment:
            if name.startswith("DASK_"):
                monkeypatch.delenv(name)
        done = hyps_run(layers, photograph, "--engine", farm.url)
        assert done.returncode == 2
        assert "dask+tls:// needs certificates" in done.stderr
        done = hyps_run(layers, photograph, "--engine", farm.url.replace("dask+tls", "dask"))
        assert done.returncode == 2
        assert "no Dask scheduler with workers at" in done.stderr


def test_workers_that_do_not_state_their_memory(
    layers: Path, hyps_run: Command, photograph: Path, tmp_path: Path, bin_folder: Path
) -> None:
    with ExitStack() as stack:
        farm = Farm(stack, tmp_path, bin_folder)
        farm.start_scheduler()
        farm.start_worker("w0", None)
        done = hyps_run(layers, photograph, "--engine", farm.url)
        assert done.returncode == 2
        assert "start them with 'dask worker ... --resources memory=BYTES'" in done.stderr
        farm.start_worker("w1", 100_000_000)
        done = hyps_run(layers, photograph, "--engine", farm.url)
        assert done.returncode == 2
        assert "MB on a worker, the largest has" in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--engine", f"dask://127.0.0.1:{free_port()}"], "no Dask scheduler with workers at 127.0.0.1"),
        (["--engine", "dask://"], "is not a Dask cluster; give dask://HOST:PORT"),
        (["--engine", "dask://host:port"], "is not a Dask cluster; give dask://HOST:PORT"),
        (["--engine", "dask://local", "--join", "x.join"], "--join is for a hub"),
        (["--engine", "dask://local", "--batch", "2"], "--engine and --join cannot be combined with --batch"),
        (["--output", "results.csv"], "results go to FILE.jsonl or FILE.parquet"),
        (["--output", "results.jsonl", "--json"], "--output cannot be combined with"),
    ],
)
def test_mistakes_are_one_line(layers: Path, hyps_run: Command, photograph: Path, options: list[str], reason: str) -> None:
    done = hyps_run(layers, photograph, *options)
    assert done.returncode == 2
    assert reason in done.stderr
