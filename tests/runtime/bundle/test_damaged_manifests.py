"""A manifest of any bytes is read, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import BundleError
from tests.runtime.bundle.manifest_documents import MISSING, DocumentPath, put


def survives(bundle: Path, document: bytes) -> None:
    """Check that reading and checking either works or ends in a `BundleError` of one line."""
    (bundle / MANIFEST_NAME).write_bytes(document)
    try:
        check_files(bundle, read_manifest(bundle))
    except BundleError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@settings(max_examples=150, deadline=None)
@given(document=st.binary(max_size=300))
def test_any_bytes_are_survived(fuzzed: Path, document: bytes) -> None:
    survives(fuzzed, document)


@pytest.fixture(scope="module")
def valid(fuzzed: Path, cifar_bundle: Path) -> bytes:
    """A real manifest, whose files are absent."""
    return (cifar_bundle / MANIFEST_NAME).read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_survived(fuzzed: Path, valid: bytes, data: st.DataObject) -> None:
    document = bytearray(valid)
    for index, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        document[index] = value
    survives(fuzzed, bytes(document))


def places(document: Any, path: DocumentPath = ()) -> list[DocumentPath]:
    """Return the paths to every value of a JSON document."""
    children = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [path] * bool(path) + [place for key, value in children for place in places(value, (*path, key))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_replaced_values_are_survived(fuzzed: Path, valid: bytes, data: st.DataObject) -> None:
    document = json.loads(valid)
    put(document, data.draw(st.sampled_from(places(document))), data.draw(JSON | st.just(MISSING)))
    survives(fuzzed, json.dumps(document).encode())


def test_a_field_with_a_line_break_in_its_name_is_reported_in_one_line(fuzzed: Path, valid: bytes) -> None:
    survives(fuzzed, valid.replace(b'"version"', b'"versi\\n\\u001b[31m"', 1))
