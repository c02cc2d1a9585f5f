"""Models and graphs that others wrote: what compiles, what is refused and why, as tables in ``docs/coverage.md``.

Every case runs as a bundle and as a whole, on the same inputs, in this process. ``make coverage`` writes the tables.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ValueInfoProto

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.session import open_session
from tests.regression.suites import NEAR, REFUSED, Case, Outcome, outcome, read_tensor, table

pytestmark = pytest.mark.regression

Section = Callable[..., None]

LIGHT = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
)
#: Networks whose largest operator is split under the smallest budget; and those that then fit in fewer than four partitions.
SHARDED = {"bvlc_alexnet", "vgg19", "zfnet512"}
SMALL = {"shufflenet", "squeezenet"}


@pytest.fixture
def section(root: Path, request: pytest.FixtureRequest) -> Section:
    """Compare a section of ``docs/coverage.md`` with what was found, or rewrite it under ``--update``."""

    def compare(title: str, text: str, measured: str = "") -> None:
        path = root / "docs" / "coverage.md"
        head, *sections = path.read_text().split("\n## ")
        known = dict(part.split("\n", 1) for part in sections)
        versions = f"Measured with onnx {onnx.__version__} and onnxruntime {ort.__version__} on {platform.machine()}."
        found = f"\n{text}\n\n{versions} {measured}".rstrip() + "\n"
        if request.config.getoption("--update"):
            known[title] = found
            path.write_text("\n## ".join([head, *(f"{name}\n{body}" for name, body in known.items())]))
        assert _tables(known.get(title, "")) == _tables(found), f"'{title}' in {path} is out of date: make coverage"

    return compare


def _tables(text: str) -> list[str]:
    """What is compared: not what another processor or version may count otherwise."""
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.fixture(scope="module")
def light(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A light model of the onnx package with seeded weights, which are no inputs."""
    folder = tmp_path_factory.mktemp("light")

    def get(name: str) -> Path:
        path = folder / f"{name}.onnx"
        source = resources.files("onnx").joinpath(f"backend/test/data/light/light_{name}.onnx")
        expand = [sys.executable, str(shared_data / "expand_light.py"), str(source), str(path)]
        subprocess.run(expand, check=True, capture_output=True)
        proto = onnx.load(path)
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = [value for value in proto.graph.input if value.name not in weights]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
        onnx.save(proto, path)
        return path

    return get


def test_light_models(light: Callable[[str], Path], section: Section) -> None:
    rows = []
    for name in LIGHT:
        path = light(name)
        tight = outcome(Case(name=name, model=path), budget_bytes="smallest")
        parted = outcome(Case(name=name, model=path), budget_bytes=10**11, split="layers")
        assert tight.partitions >= 4 or (name in SMALL and parted.partitions >= 4), (name, tight, parted)
        assert tight.shards > 0 or name not in SHARDED, (name, tight)
        rows.append((name, *map(_result, (tight, parted)), "yes" if tight.shards else "none is needed"))
        path.unlink()
    headings = ("model", "under the smallest budget", "cut after every layer", "operators split")
    section("Light models of the onnx package, with seeded weights", table(rows, headings))


def test_trained_models(shared_data: Path, section: Section) -> None:
    rows = []
    for path in sorted((shared_data / "models").glob("*.onnx")):
        made: dict[str, list[Outcome]] = defaultdict(list)
        for case in _trained(shared_data, path):
            for options in ({"budget_bytes": "smallest"}, {"budget_bytes": 10**11, "split": "layers"}):
                made[case.name].append(outcome(case, **options))
        for name, found in made.items():
            reasons = dict.fromkeys(each.reason for each in found if each.result == REFUSED)
            expected = dict.fromkeys(each.expected or "none" for each in found if each.result != REFUSED)
            rows.append((name, _result(found[0]), _result(found[1]), ", ".join(expected), "; ".join(reasons)))
    headings = ("model", "under the smallest budget", "cut after every layer", "its own reference", "refused because")
    section("Trained models", table(rows, headings))


def _trained(shared_data: Path, path: Path) -> Iterator[Case]:
    """The reference inputs and outputs of a trained model, as cases."""
    reference = shared_data / "ref" / f"{path.stem}.npz"
    if reference.exists():
        with np.load(reference) as arrays:
            inputs = {name[3:]: arrays[name] for name in arrays if name.startswith("in:")}
            expected = {name[4:]: arrays[name] for name in arrays if name.startswith("out:")}
        yield Case(name=path.stem, model=path, inputs=inputs, expected=expected)
        if (
            path.stem == "silero_vad"
        ):  # its reference is at 16 kHz, where its branch for 8 kHz is wrong, which is the other If
            slow = {"input": inputs["input"][:, ::2].copy(), "sr": np.array(8000), "state": inputs["state"]}
            yield Case(name="silero_vad, 8 kHz", model=path, inputs=slow)
        return
    proto = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    (source,) = (value.name for value in proto.graph.input if value.name not in weights)
    pairs = sorted((shared_data / "ref").glob(f"{path.stem}*_input_0.pb"))
    for given in pairs:
        expected = {proto.graph.output[0].name: read_tensor(Path(str(given).replace("_input_", "_output_")))}
        yield Case(name=path.stem, model=path, inputs={source: read_tensor(given)}, expected=expected)
    if not pairs:
        yield Case(name=path.stem, model=path)


def _result(made: Outcome) -> str:
    return made.result if made.result != NEAR else f"{NEAR} ({_kind(made.reason)})"


def _kind(reason: str) -> str:
    """A reason in short, without the names of a plan's operators, which another plan would not name."""
    kinds = {
        "cut separates": "a cut inside a fusion",
        "weights among its inputs": "weights are inputs",
        "16-bit": "16-bit floats",
        "compute the same": "operators alike",
        "would compute them as one": "a split inside a fusion",
        "not known": "operators not measured",
        "draws random": "random numbers",
    }
    return next((kind for words, kind in kinds.items() if words in reason), "shards")


def test_operator_tests(section: Section, tmp_path: Path) -> None:
    """onnx's own tests of operators that take two nodes or more, cut after each."""
    found = [outcome(case, budget_bytes=10**11, split="layers") for case in _operator_tests(tmp_path)]
    assert len(found) > 300
    assert sum(made.partitions > 1 for made in found) > 200
    results = Counter(_result(made) for made in found)
    expectations = Counter(made.expected for made in found if made.expected)
    refused: dict[str, list[str]] = defaultdict(list)
    for made in found:
        if made.result == REFUSED:
            refused[_without_names(made.reason)].append(made.name.removeprefix("test_"))
    rows = [(result, str(count)) for result, count in sorted(results.items())]
    expected = [(kind, str(count)) for kind, count in sorted(expectations.items())]
    reasons = [(", ".join(names), reason) for reason, names in sorted(refused.items(), key=lambda item: item[1])]
    tables = (
        table(rows, ("bundle against whole model", "tests")),
        table(expected, ("against the test's own outputs", "tests")),
        table(reasons, ("refused", "because")),
    )
    equal = f"{sum(made.equal for made in found)} differ in no bit, promised or not."
    section("Operator tests of the onnx package, of two nodes or more, cut after every layer", "\n\n".join(tables), equal)


def _without_names(reason: str) -> str:
    """A refusal without what differs from test to test: quoted names, unknown dimensions, and tensors to stop at."""
    reason = re.sub(r"(--until (?:'[^']*'|[^\s,']+)\s?)+", "--until TENSOR", reason)
    return re.sub(r" '[^']*'| \(\[.*?\]\)| \(of unknown rank\)", "", reason)


def _operator_tests(folder: Path) -> Iterator[Case]:
    """Those that onnxruntime runs; their models and inputs are made by the package's own generator."""
    from onnx.backend.test.case.node import collect_testcases

    np.random.seed(0)
    with warnings.catch_warnings(action="ignore"):
        cases = collect_testcases(None)
    for case in cases:
        assert case.model and case.data_sets
        if len(case.model.graph.node) < 2 and not case.model.functions:
            continue
        path = folder / f"{case.name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        given, made = case.data_sets[0]
        inputs = _tensors(case.model.graph.input, given)
        if any(array.dtype.kind in "OSU" for array in inputs.values()):  # onnxruntime takes no text from outside
            continue
        try:
            session = open_session(path, 1)
            if len(inputs) == len(given):
                session.run([value.name for value in case.model.graph.output], inputs)
        except RuntimeFault:
            continue
        expected = _tensors(case.model.graph.output, made)
        yield Case(name=case.name, model=path, inputs=inputs, expected=expected, rtol=case.rtol, atol=case.atol)


def _tensors(values: Iterable[ValueInfoProto], arrays: Iterable[Any]) -> dict[str, NDArray[Any]]:
    """By name those that are tensors."""
    pairs = zip(values, arrays, strict=False)
    return {value.name: np.asarray(array) for value, array in pairs if isinstance(array, np.ndarray | np.generic)}
