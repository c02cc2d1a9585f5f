"""Every version of onnxruntime has its bytes, and a bundle whose budget may not hold on one is named."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.target import TargetRecord
from hyps.runtime.errors import BudgetError
from hyps.runtime.library_memory import (
    BEFORE_NAMED,
    COSTLIEST,
    MARGIN_BYTES,
    MEASURED,
    check_interface,
    is_measured,
    library_memory,
    measured_versions,
    missing_bytes,
    short_version,
    version_warning,
)

ROOT = Path(__file__).parents[2]
OLDEST, NEWEST = MEASURED[0], MEASURED[-1]


def planned_for(manifest: Manifest, version: str, budget_bytes: int) -> Manifest:
    target = TargetRecord(name="custom", threads=2, onnxruntime=version)
    return msgspec.structs.replace(manifest, target=target, budget_bytes=budget_bytes)


@pytest.mark.parametrize("each", MEASURED, ids=lambda each: each.version)
def test_a_measured_version_takes_what_was_measured(each: object) -> None:
    assert isinstance(each, type(OLDEST))
    assert library_memory(f"{each.version}.7") == each
    assert is_measured(each.version)


def test_a_version_between_two_takes_as_much_as_the_costlier() -> None:
    found = library_memory("1.27.0")
    assert found.process_bytes == max(each.process_bytes for each in MEASURED[:2])
    assert found.start_bytes == max(each.start_bytes for each in MEASURED[:2])
    assert (found.version, found.margin_bytes, is_measured("1.27.0")) == ("1.27", 0, False)


@pytest.mark.parametrize(("version", "nearest"), [("1.22.1", OLDEST), ("1.99.0", NEWEST), ("2.0", NEWEST)])
def test_a_version_outside_takes_a_margin_more(version: str, nearest: object) -> None:
    assert isinstance(nearest, type(OLDEST))
    found = library_memory(version)
    assert found.process_bytes == nearest.process_bytes + MARGIN_BYTES
    assert found.start_bytes == nearest.start_bytes + MARGIN_BYTES
    assert found.margin_bytes == MARGIN_BYTES


def test_the_default_takes_most_and_no_later_version_takes_less() -> None:
    assert NEWEST.version == COSTLIEST
    assert [each.process_bytes for each in MEASURED] == sorted(each.process_bytes for each in MEASURED)
    assert BEFORE_NAMED in {each.version for each in MEASURED}


@pytest.mark.parametrize(
    ("text", "short"), [("1.32.0", "1.32"), ("1.32", "1.32"), ("1.33.0.dev2", "1.33"), ("01.05", "1.5")]
)
def test_short_version(text: str, short: str) -> None:
    assert short_version(text) == short


@pytest.mark.parametrize("text", ["", "1", "latest", "1.x", "v1.32", "1.99999"])
def test_text_that_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no version of onnxruntime; write e.g. 1.32")):
        library_memory(text)


def test_the_budget_holds_on_the_version_it_was_planned_for_and_on_cheaper_ones(manifest: Manifest) -> None:
    exact = planned_for(manifest, NEWEST.version, manifest.steps[0].peak_bytes)
    assert [missing_bytes(exact, each.version) for each in MEASURED] == [0] * len(MEASURED)
    assert version_warning(exact, "1.27.1") is None


def test_the_budget_may_not_hold_on_a_costlier_one(manifest: Manifest) -> None:
    exact = planned_for(manifest, NEWEST.version, manifest.steps[0].peak_bytes)
    assert version_warning(exact, "1.99.2") == (
        f"the budget was planned for onnxruntime {NEWEST.version}, and 1.99.2 may take {MARGIN_BYTES / 1e6} MB more than it "
        "allows; compile again with --onnxruntime 1.99"
    )
    more = NEWEST.process_bytes - OLDEST.process_bytes
    assert missing_bytes(planned_for(exact, OLDEST.version, exact.budget_bytes), NEWEST.version) >= more > 0


@pytest.mark.parametrize("version", [*(each.version for each in MEASURED), "1.27.1"])
def test_the_c_interface_takes_less(version: str, manifest: Manifest) -> None:
    usual, less = library_memory(version), library_memory(version, "c")
    assert less.process_bytes + 15_000_000 < usual.process_bytes
    assert less.start_bytes + 15_000_000 < usual.start_bytes
    planned = planned_for(manifest, version, manifest.steps[0].peak_bytes)
    assert missing_bytes(planned, version, "c") == 0
    planned = msgspec.structs.replace(planned, target=msgspec.structs.replace(planned.target, interface="c"))
    more = max(usual.process_bytes - less.process_bytes, usual.start_bytes - less.start_bytes)
    assert missing_bytes(planned, version, "python") == more
    check_interface(planned, version, "c")
    with pytest.raises(BudgetError, match=f"anything else needs {more / 1e6} MB more than it allows; compile again without"):
        check_interface(planned, version, "python")


def test_a_budget_with_room_holds(manifest: Manifest) -> None:
    roomy = planned_for(manifest, NEWEST.version, manifest.steps[0].peak_bytes + MARGIN_BYTES)
    assert version_warning(roomy, "1.99.2") is None


def test_the_oldest_version_allowed_was_measured() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"onnxruntime>={OLDEST.version}" in project["dependencies"]
    listed = re.search(r"^ORT \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed
    assert listed[1].split() == [each.version for each in MEASURED]
    assert measured_versions() == "1.23, 1.28, 1.31 and 1.32"


def test_doctor_can_ask_without_importing_libraries() -> None:
    script = "import sys, hyps.runtime.library_memory; print(sorted({'msgspec', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
