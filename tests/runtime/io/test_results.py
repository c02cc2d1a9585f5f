"""Results: classes by score, a softmax only where the network has none, and the JSON of issue 2."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import OutputRecord
from hyps.runtime.errors import InputError
from hyps.runtime.execution.step_profile import StepProfile
from hyps.runtime.io.results import ClassScore, ResultRecord, profile_lines, result_lines, top_classes


def classes(manifest: Manifest, scores: Any, count: int = 5) -> list[tuple[int, str | None, float]]:
    outputs: dict[str, NDArray[Any]] = {"scores": np.asarray(scores)}
    return [(scored.index, scored.label, scored.score) for scored in top_classes(manifest, outputs, count)]


@pytest.fixture
def softmaxed(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, outputs=(OutputRecord(name="scores", probabilities=True),))


def test_scores_become_probabilities_best_first(manifest: Manifest) -> None:
    logits = [[0.5, -1.0, 3.0, 2.0]]
    total = sum(math.exp(score) for score in logits[0])
    found = classes(manifest, np.array(logits, np.float32))
    assert [(index, label) for index, label, _ in found] == [(2, "cow"), (3, "dog"), (0, "ant"), (1, "bee")]
    for index, _, score in found:
        assert score == pytest.approx(math.exp(logits[0][index]) / total, rel=1e-6)
    assert sum(score for *_, score in found) == pytest.approx(1)


def test_probabilities_stay_as_they_are(softmaxed: Manifest) -> None:
    assert classes(softmaxed, [[0.125, 0.5, 0.25, 0.125]], 2) == [(1, "bee", 0.5), (2, "cow", 0.25)]


def test_large_scores_do_not_overflow(manifest: Manifest) -> None:
    (first, _, sure), (second, _, unsure) = classes(manifest, np.array([[1e4, 1e4 - 1, -1e4, 0]], np.float32), 2)
    assert (first, second) == (0, 1)
    assert sure == pytest.approx(1 / (1 + math.exp(-1)))
    assert unsure == pytest.approx(1 / (1 + math.e))


@pytest.mark.parametrize("scores", [[1.0, math.inf, 2.0, 3.0], [1.0, math.nan, 2.0, 3.0], [-math.inf] * 4], ids=str)
def test_scores_that_are_not_numbers_are_an_error(manifest: Manifest, softmaxed: Manifest, scores: list[float]) -> None:
    """Warnings are errors in tests; on a device they would be lines on standard error."""
    for model in (manifest, softmaxed):
        with pytest.raises(InputError, match="the scores in output 'scores' are not all numbers"):
            classes(model, [scores])


def test_a_class_that_is_impossible_has_no_probability(manifest: Manifest) -> None:
    assert classes(manifest, [[1.0, -math.inf, 2.0, 3.0]])[-1] == (1, "bee", 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_as_many_as_asked_for_and_no_more_than_there_are(manifest: Manifest, count: int) -> None:
    assert len(classes(manifest, [[1.0, 2.0, 3.0, 4.0]], count)) == min(count, 4)


def test_equal_scores_come_by_index(manifest: Manifest, softmaxed: Manifest) -> None:
    for model in (manifest, softmaxed):
        assert [index for index, *_ in classes(model, [[0.2, 0.4, 0.2, 0.4]])] == [1, 3, 0, 2]
        assert [index for index, *_ in classes(model, [[0.0] * 4])] == [0, 1, 2, 3]


def test_equal_scores_of_many_classes_come_by_index(softmaxed: Manifest) -> None:
    """An unstable sort would change their order."""
    unlabelled = msgspec.structs.replace(softmaxed, labels=None)
    scores = np.tile([0.0, 1.0], 500)[None] / 500
    assert classes(unlabelled, scores, 3) == [(1, None, 0.002), (3, None, 0.002), (5, None, 0.002)]


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 4, 1, 1), (1, 1, 4)])
def test_dimensions_of_one_do_not_matter(softmaxed: Manifest, shape: tuple[int, ...]) -> None:
    assert classes(softmaxed, np.array([0.1, 0.2, 0.3, 0.4]).reshape(shape), 1) == [(3, "dog", 0.4)]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 2), (1, 2, 2, 1), (2, 4)])
def test_what_is_no_vector_of_scores_has_no_classes(manifest: Manifest, shape: tuple[int, ...]) -> None:
    assert classes(manifest, np.zeros(shape)) == []


def test_classes_need_a_sign_that_there_are_any(manifest: Manifest, softmaxed: Manifest) -> None:
    scores = [[0.1, 0.2, 0.3, 0.4]]
    plain = msgspec.structs.replace(manifest, labels=None, preprocess=None)
    assert classes(plain, scores) == []
    for sign in (
        msgspec.structs.replace(manifest, labels=None),
        msgspec.structs.replace(manifest, preprocess=None),
        msgspec.structs.replace(softmaxed, labels=None, preprocess=None),
    ):
        assert len(classes(sign, scores)) == 4


def test_without_labels_the_label_is_none(manifest: Manifest) -> None:
    unlabelled = msgspec.structs.replace(manifest, labels=None)
    assert [label for _, label, _ in classes(unlabelled, [[1.0, 2.0, 3.0, 4.0]], 2)] == [None, None]


def test_of_several_outputs_the_first_counts(softmaxed: Manifest) -> None:
    two = msgspec.structs.replace(softmaxed, outputs=(*softmaxed.outputs, OutputRecord(name="other", probabilities=False)))
    outputs = {"other": np.array([9.0, 0, 0, 0]), "scores": np.array([[0.1, 0.2, 0.3, 0.4]])}
    assert top_classes(two, outputs, 1) == (ClassScore(index=3, label="dog", score=0.4),)


RESULT = ResultRecord(
    input="cat.jpg",
    top=(ClassScore(index=281, label="tabby", score=0.62), ClassScore(index=2, label=None, score=0.25)),
    outputs={"prob": (1, 1000), "scalar": ()},
    latency_s=0.25,
    peak_rss_bytes=61_440_000,
    budget_bytes=72_000_000,
)


def test_json_is_that_of_issue_2() -> None:
    assert msgspec.json.encode(RESULT).decode() == (
        '{"input":"cat.jpg","top":[{"index":281,"label":"tabby","score":0.62},{"index":2,"label":null,"score":0.25}],'
        '"outputs":{"prob":[1,1000],"scalar":[]},"latency_s":0.25,"peak_rss_bytes":61440000,"budget_bytes":72000000}'
    )


def test_lines_for_people() -> None:
    assert list(result_lines(RESULT, {}, 1)) == [
        "cat.jpg",
        "   62.00%    281  tabby",
        "   25.00%      2",
        "  0.250 s, peak memory 61.4 MB of a budget of 72.0 MB",
    ]


def test_lines_of_what_has_no_classes_tell_the_outputs() -> None:
    plain = msgspec.structs.replace(RESULT, top=())
    outputs: dict[str, NDArray[Any]] = {"boxes": np.zeros((1, 5, 4), np.float32), "count": np.zeros((), np.int64)}
    assert list(result_lines(plain, outputs, 7)) == [
        "cat.jpg",
        "  boxes: float32[1, 5, 4]",
        "  count: int64[]",
        "  0.250 s (median of 7), peak memory 61.4 MB of a budget of 72.0 MB",
    ]


def test_a_profile_has_a_row_per_step() -> None:
    def profile(name: str, wait_s: float, run_s: float, faults: int, read_bytes: int, resident_bytes: int) -> StepProfile:
        return StepProfile(
            name=name,
            wait_s=wait_s,
            open_s=run_s / 2,
            run_s=run_s,
            copy_s=0,
            close_s=0,
            hash_s=0,
            minor_faults=faults,
            major_faults=0,
            read_bytes=read_bytes,
            resident_bytes=resident_bytes,
        )

    rows = [
        profile("00-conv1_1", 0.0086, 0.002, 1200, 204_800, 57_300_000),
        profile("01", 12.5, 0.0, 0, 0, 1_234_500_000),
    ]
    assert list(profile_lines(rows)) == [
        "step, ms        wait  open  run  copy  close  hash  faults  major      read    resident",
        "00-conv1_1       8.6   1.0  2.0   0.0    0.0   0.0   1,200      0  0.205 MB     57.3 MB",
        "01          12,500.0   0.0  0.0   0.0    0.0   0.0       0      0  0.000 MB  1,234.5 MB",
        "all         12,508.6   1.0  2.0   0.0    0.0   0.0   1,200      0  0.205 MB  1,234.5 MB",
    ]
