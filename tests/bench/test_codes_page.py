"""Test that the page of codes shows what was measured, from raw results that survive their file."""

from __future__ import annotations

from pathlib import Path

from tests.bench.codes import write_codes
from tests.bench.codes_results import (
    CodesResults,
    DecodingCost,
    DelayRun,
    FaultRun,
    KillRun,
    LossRun,
    PhotographRun,
)
from tests.bench.known_results import part
from tests.bench.readings import load, save


def results() -> CodesResults:
    kills = [
        KillRun(
            name=name,
            kills=2,
            calm_s=(0.1,) * 99,
            around_s=(around,) * 40,
            next_s=(0.02, 0.04),
            decoded=40,
            wrong=0,
            calm_next_s=(0.0, 0.01, 0.02),
        )
        for name, around in (("codes and copies", 0.105), ("without codes", 0.8))
    ]
    delays = [
        DelayRun(name=name, shards=shards, seconds=(seconds,) * 20, decoded=3)
        for shards in (2, 4)
        for name, seconds in (("without codes", 1.0), ("codes, late", 0.6), ("codes, always", 0.4))
    ]
    cost = DecodingCost(
        code="fc6", shards=4, parity=1, tensor_bytes=4096, shard_s=0.02, decode_s=0.0005, inputs=1000, patterns=4,
        error=1e-6, bound=3e-6,
        moved_bytes=94_000_000 // 8 // 10,
    )  # fmt: skip
    loss = LossRun(network="CIFAR classifier", layer="relu", images=10, accuracy={"0.0": 0.8, "0.9": 0.1}, coded=0.8)
    seen = PhotographRun(
        network="SqueezeNet", parity=1, codes=3, patterns=18, images=80, right=60, changed=1, error=2e-6, bound=4e-6,
    )  # fmt: skip
    fault = FaultRun(network="CIFAR classifier", answers=500, wrong=0, jobs={"delivered": 500}, next_s={"worker": (0.05,)})
    return CodesResults(
        kills=part(tuple(kills)),
        delays=part(tuple(delays)),
        decoding=part((cost,)),
        losses=part((loss,)),
        photographs=part((seen,)),
        faults=part(fault),
    )


def test_the_page_shows_every_part(tmp_path: Path) -> None:
    save(results(), tmp_path / "codes.json")
    write_codes(load(tmp_path / "codes.json", CodesResults), tmp_path)
    page = (tmp_path / "codes.md").read_text()
    for row in (
        "| codes and copies | 2 | 139 | 40 | 0 | 100 | 105 | 1.05 | 30 | 38 | 40 | 10 | 18 | 20 |",
        "| 2, codes, late | 20 | 3 | 600 | 600 | 600 | 40% |",
        "| fc6 | 4 + 1 | 4 | 1,000 | 1.0e-06 | 3.0e-06 | 20.00 | 0.50 | 2% | 0.4% |",
        "| CIFAR classifier, relu | 80.0% | 10.0% | 80.0% |",
        "| SqueezeNet, --tolerate 1 | 3 | 18 | 80 | 75.0% | 1 of 1,440 | 2.0e-06 | 4.0e-06 |",
        "| worker | 1 | 50 | 50 | 50 | - | - | - |",
        "| C3D, two each | 7 | 44% | 67% | 7 | 5 |",
        "| C3D, three each | 9 | 36% | 73% | 9 | 5 |",
    ):
        assert row in page
    drawn = {path.stem for path in (tmp_path / "codes").glob("*.svg")}
    assert drawn == {"coverage", "kills", "stragglers", "mitigation", "losses"}
    assert all(f"codes/{name}.svg" in page for name in drawn)


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    write_codes(CodesResults(), tmp_path)
    assert (tmp_path / "codes.md").read_text().count("Not measured yet.") == 6
