"""Parse sizes, and refuse those that may mean two things."""

from __future__ import annotations

import pytest

from hyps.compiler.sizes import parse_size

HOW = "write e.g. 128MB or 122MiB"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("128MB", 128_000_000),
        ("1.5GB", 1_500_000_000),
        ("96MiB", 96 * 2**20),
        ("1GiB", 2**30),
        ("2KB", 2_000),
        ("2KiB", 2_048),
        ("640B", 640),
        ("640 b", 640),
        ("128 MB", 128_000_000),
        ("  128MB\n", 128_000_000),
        ("128mb", 128_000_000),
        ("1kB", 1_000),
        ("1gib", 2**30),
        ("0.1GB", 100_000_000),
        ("0.29MB", 290_000),
        ("1.9B", 1),
    ],
)
def test_parses(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"the size is empty; {HOW}"),
        ("  ", f"the size is empty; {HOW}"),
        ("128", f"'128' has no unit; {HOW}"),
        ("1.5", f"'1.5' has no unit; {HOW}"),
        ("-5", f"'-5' has no unit; {HOW}"),
        ("-5MB", f"'-5MB' is negative; {HOW}"),
        ("0MB", f"'0MB' is less than one byte; {HOW}"),
        ("0.5B", f"'0.5B' is less than one byte; {HOW}"),
        ("nan", f"'nan' is not a size; {HOW}"),
        ("nanMB", f"'nanMB' is not a size; {HOW}"),
        ("inf", f"'inf' is not a size; {HOW}"),
        ("MB", f"'MB' is not a size; {HOW}"),
        ("1e3MB", f"'1e3MB' is not a size; {HOW}"),
        ("1,024MB", f"'1,024MB' is not a size; {HOW}"),
        ("1\n2MB", f"'1\\n2MB' is not a size; {HOW}"),
        ("١٢MB", f"'١٢MB' is not a size; {HOW}"),
        ("128M", "'128M' is ambiguous; write 128MB (decimal) or 128MiB (binary)"),
        ("128g", "'128g' is ambiguous; write 128GB (decimal) or 128GiB (binary)"),
        ("128Mb", "'128Mb' means bits; write 128MB for bytes"),
        ("128Mib", "'128Mib' means bits; write 128MiB for bytes"),
        ("1TB", "'1TB' has an unknown unit; use B, KB, MB, GB, KiB, MiB or GiB"),
        ("3 apples", "'3 apples' has an unknown unit; use B, KB, MB, GB, KiB, MiB or GiB"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["9" * 10_000 + "MB", "0." + "9" * 10_000 + "MB"], ids=["digits", "decimals"])
def test_refuses_an_endless_number_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
