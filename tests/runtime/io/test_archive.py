"""Archives keep each result once, in whole lines, of one bundle; a later run continues them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.errors import OutputError
from hyps.runtime.io.archive import JsonLinesArchive, ParquetArchive, open_archive
from hyps.runtime.io.results import ClassScore, ResultRecord

BUNDLE = "0" * 64


def result(number: int) -> ResultRecord:
    top = (ClassScore(index=number, label="cat", score=0.5), ClassScore(index=1, label=None, score=0.25))
    return ResultRecord(
        input=f"{number}.jpg", top=top, outputs={"y": (1, 10)}, latency_s=0.5, peak_rss_bytes=1, budget_bytes=2
    )


@pytest.mark.parametrize("kind", [JsonLinesArchive, ParquetArchive])
def test_archived_results_are_known(tmp_path: Path, kind: type[JsonLinesArchive] | type[ParquetArchive]) -> None:
    path = tmp_path / "results"
    for start in (0, 3):
        archive = kind(path, BUNDLE)
        assert archive.done == {f"{number}.jpg" for number in range(start)}
        for number in range(start, start + 3):
            archive.add(result(number))
        archive.close()
    with closing(kind(path, BUNDLE)) as archive:
        assert archive.done == {f"{number}.jpg" for number in range(6)}
    with pytest.raises(OutputError, match="holds results of another bundle"):
        kind(path, "1" * 64)


def test_json_lines_are_results(tmp_path: Path) -> None:
    with closing(JsonLinesArchive(tmp_path / "results.jsonl", BUNDLE)) as archive:
        archive.add(result(7))
        (line,) = (tmp_path / "results.jsonl").read_text().splitlines()  # written without waiting for close()
    found = json.loads(line)
    assert (found["input"], found["bundle"]) == ("7.jpg", BUNDLE)
    assert found["top"][0] == {"index": 7, "label": "cat", "score": 0.5}


@pytest.mark.parametrize("end", [b'{"input": "x', b"{", b""])
def test_an_incomplete_last_line_is_removed(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "results.jsonl"
    archive = JsonLinesArchive(path, BUNDLE)
    archive.add(result(0))
    archive.close()
    before = path.read_bytes()
    path.write_bytes(before + end)
    archive = JsonLinesArchive(path, BUNDLE)
    assert archive.done == {"0.jpg"}
    archive.add(result(1))
    archive.close()
    assert path.read_bytes().startswith(before + b'{"')
    with closing(JsonLinesArchive(path, BUNDLE)) as archive:
        assert archive.done == {"0.jpg", "1.jpg"}


@pytest.mark.parametrize("content", [b"no result\n", b'{"input": "x"}\n', b"\xff\xfe\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="holds something other than results"):
        JsonLinesArchive(path, BUNDLE)
    assert path.read_bytes() == content


def test_parquet_is_one_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    archive = ParquetArchive(tmp_path / "results.parquet", BUNDLE)
    for number in range(2500):
        archive.add(result(number))
    assert 2 <= len([*(tmp_path / "results.parquet").iterdir()]) <= 3  # in the order of arrival
    archive.close()
    table = parquet.read_table(tmp_path / "results.parquet")
    assert sorted(table["input"].to_pylist()) == sorted(f"{number}.jpg" for number in range(2500))
    assert table["top"][0].as_py()[0] == {"index": 0, "label": "cat", "score": 0.5}


def test_a_damaged_part_is_said(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").mkdir()
    (tmp_path / "results.parquet/part-1.parquet").write_bytes(b"nothing")
    with pytest.raises(OutputError, match="cannot continue the results in"):
        ParquetArchive(tmp_path / "results.parquet", BUNDLE)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(OutputError, match=r"results go to FILE.jsonl or FILE.parquet"):
        open_archive(tmp_path / "results.csv", tmp_path)
