"""Test boards files: the example's fleet, and that every mistake is one line that says what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hyps.runtime.cluster.planning.fleets import load_fleet
from hyps.runtime.cluster.planning.problem import HUB
from hyps.runtime.cluster.planning.quantities import BYTES, BYTES_PER_S, SECONDS, quantity
from hyps.runtime.errors import BoardsError
from tests.repository import ROOT

EXAMPLE = ROOT / "docs" / "guide" / "boards.toml"
TARGET = """name = "x"
memory_bytes = 1_000_000_000
reserved_bytes = 200_000_000
storage_read_bytes_per_s = 22_000_000
conv_macs_per_s = 4_000_000_000
"""


def test_the_example() -> None:
    planned = load_fleet(EXAMPLE)
    boards = {board.name: board for board in planned.fleet.boards}
    assert list(boards) == ["pi3-1", "pi3-2", "pi4-1", "pi4-2", "far"]
    assert boards["pi3-2"].storage_bytes_per_s == 22e6
    assert planned.macs_per_s == {"pi3": 1e9, "pi4": 3e9, "far": 8e9}
    links = planned.fleet.links
    assert links["pi4-1", HUB].bytes_per_s == pytest.approx(11.75e6)
    assert links["pi3-1", HUB].bytes_per_s == pytest.approx(3e6)  # the router's link is the slower one
    assert links["pi3-1", HUB].latency_s == pytest.approx(0.0043)
    assert links[HUB, "far"].bytes_per_s == pytest.approx(6.25e6)
    assert links["pi3-2", "pi3-1"].latency_s == pytest.approx(0.0003)
    shared = {each.name: each for each in planned.fleet.shared_links}
    assert shared["router attic"].boards == {"pi3-1", "pi3-2"}
    assert not shared["router attic"].duplex  # it is a WLAN
    assert shared["the hub's link"].boards == set(boards)
    assert planned.fleet.hub_watts == 4


def test_a_target_gives_what_the_entry_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "pi.toml").write_text(TARGET)
    text = """links.lan = { bandwidth = "94 Mbit/s", latency = "0 ms" }
    [[boards]]
    name = "pi"
    target = "pi.toml"
    storage = "1 MiB/s"
    idle = "0 W"
    busy = "500 mW"
    link = "lan"
    """
    (tmp_path / "boards.toml").write_text(text)
    planned = load_fleet(tmp_path / "boards.toml")
    (board,) = planned.fleet.boards
    assert (board.memory_bytes, board.storage_bytes_per_s, board.busy_watts) == (800_000_000, 1 << 20, 0.5)
    assert planned.macs_per_s == {"pi": 4e9}
    assert planned.profiled_as == {"pi": "pi"}


def test_a_message_takes_what_is_stated_or_what_the_speed_gives(tmp_path: Path) -> None:
    text = """links.lan = { bandwidth = "94 Mbit/s", latency = "0 ms" }
    boards = [
        { name = "a", memory = "1 GB", storage = "1 MB/s", speed = "4 GMAC/s", link = "lan", idle = "1 W", busy = "2 W" },
        { name = "b", memory = "1 GB", storage = "1 MB/s", speed = "4 GMAC/s", link = "lan", idle = "1 W", busy = "2 W",
          message = "0.3 ms" },
    ]
    """.replace("\n          message", " message")
    (tmp_path / "boards.toml").write_text(text)
    one, other = load_fleet(tmp_path / "boards.toml").fleet.boards
    assert one.message_s == 2e6 / 4e9
    assert other.message_s == pytest.approx(0.3e-3)


def test_a_targets_message_counts_where_the_file_states_none(tmp_path: Path) -> None:
    target = (ROOT / "compiler" / "target_data" / "rpi3b.toml").read_text("utf-8")
    (tmp_path / "pi.toml").write_text(f"message_us = 700\n{target}")
    text = """links.lan = { bandwidth = "94 Mbit/s", latency = "0 ms" }
    boards = [
        { name = "a", target = "pi.toml", speed = "3 GMAC/s", link = "lan" },
        { name = "b", target = "pi.toml", speed = "3 GMAC/s", link = "lan", message = "0.3 ms" },
    ]
    """
    (tmp_path / "boards.toml").write_text(text)
    assert [board.message_s for board in load_fleet(tmp_path / "boards.toml").fleet.boards] == pytest.approx([7e-4, 3e-4])
    (tmp_path / "pi.toml").write_text(f"message_us = 0\n{target}")
    with pytest.raises(BoardsError, match=r"Expected `int` >= 1 - at `\$.message_us`"):
        load_fleet(tmp_path / "boards.toml")


def test_a_built_in_target_gives_the_power(tmp_path: Path) -> None:
    """`hypsc targets show rpi3b` prints this file."""
    shutil.copy(ROOT / "compiler" / "target_data" / "rpi3b.toml", tmp_path)
    text = """links.lan = { bandwidth = "94 Mbit/s", latency = "0 ms" }
    boards = [
        { name = "pi", target = "rpi3b.toml", speed = "3 GMAC/s", link = "lan" },
        { name = "metered", target = "rpi3b.toml", speed = "3 GMAC/s", link = "lan", busy = "4 W" },
    ]
    """
    (tmp_path / "boards.toml").write_text(text)
    one, other = load_fleet(tmp_path / "boards.toml").fleet.boards
    assert (one.idle_watts, one.busy_watts) == (1.4, 3.7)
    assert (other.idle_watts, other.busy_watts) == (1.4, 4.0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"22 MB/s"', '"-22 MB/s"', "board pi3: storage = '-22 MB/s' is not above 0"),
        ('"22 MB/s"', '"0 MB/s"', "board pi3: storage = '0 MB/s' is not above 0"),
        ('"22 MB/s"', '"22 MB"', "board pi3: storage = '22 MB' is no number with a unit of"),
        ('"22 MB/s"', '"22"', "'22' is no number with a unit of"),
        ('"0.2 ms"', '"-0.2 ms"', "message = '-0.2 ms' is not 0 or more"),
        ('"0.2 ms"', '"0.2"', "message = '0.2' is no number with a unit of s, ms"),
        ('"22 MB/s"', "22", "Expected `str | null`, got `int` - at `$.boards[0].storage`"),
        ('"22 MB/s"', '"nan MB/s"', "'nan MB/s' is no number"),
        ('storage = "22 MB/s"', "", 'board pi3 has no storage; write one, e.g. storage = "22 MB/s"'),
        ('idle = "1.4 W"', "", "board pi3 has no idle"),
        ('idle = "1.4 W"', 'idle = "5 W"', "board pi3 takes less power busy (3.7 W) than idle (5 W)"),
        ('link = "wan"', 'link = "wam"', "board far names link 'wam', which is not there; did you mean 'wan'?"),
        ('router = "attic"', 'router = "cellar"', "board pi3 names router 'cellar', which is not there"),
        ('["pi3-1", "pi3-2"]', '["pi3-1", "pi3-9"]', "pair pi3-1 and pi3-9: there is no board 'pi3-9'"),
        ('["pi3-1", "pi3-2"]', '["pi3-1", "pi3-1"]', "pair pi3-1 and pi3-1 is no pair"),
        ('["pi3-1", "pi3-2"]', '["pi3-1"]', "Expected `array` of length >= 2"),
        ('name = "pi4"', 'name = "pi3"', "has two entries for boards pi3"),
        ('name = "far"', 'name = "pi3-1"', "has a second board or hub pi3-1"),
        ('name = "far"', 'name = "hub"', "has a second board or hub hub"),
        ('name = "far"', 'name = "a b"', "Expected `str` matching regex"),
        ("count = 2", "count = 0", "Expected `int` >= 1"),
        ("count = 2", "count = 9999999", "Expected `int` <= 2000"),
        ("count = 2", "cuont = 2", "unknown field `cuont`"),
        ('latency = "20 ms"', "", "missing required field `latency`"),
        ('up = "10 Mbit/s"', "", "link wan has no up; write one"),
        ('up = "10 Mbit/s"', 'bandwidth = "1 Mbit/s"', "link wan has a bandwidth and also up or down"),
        ('up = "10 Mbit/s"\ndown = "50 Mbit/s"', "", "link wan has no bandwidth"),
        ('"4 W"', '"4 V"', "hub: power = '4 V' is no number with a unit of"),
        ("[hub]", "[hub", "is not valid TOML"),
        ("[hub]", "[[hub]]", "has hub as a list; write [hub] instead"),
        ("[links.lan]", "[[links]]", "has links as a list; write [links.NAME] instead"),
        ('speed = "8 GMAC/s"', 'target = "none.toml"', "cannot read the target file"),
        ('speed = "8 GMAC/s"', 'target = "rpi3b"', "hypsc targets show rpi3b > rpi3b.toml"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = EXAMPLE.read_text("utf-8")
    assert before in text
    (tmp_path / "boards.toml").write_text(text.replace(before, after, 1), "utf-8")
    with pytest.raises(BoardsError) as caught:
        load_fleet(tmp_path / "boards.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["boards", "boards.pi3"])
def test_boards_in_one_table(tmp_path: Path, section: str) -> None:
    (tmp_path / "boards.toml").write_text(f'[{section}]\nname = "pi3"\n')
    with pytest.raises(BoardsError, match=r"has boards as one table; write \[\[boards\]\] above each entry$"):
        load_fleet(tmp_path / "boards.toml")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a=" + b"[" * 100_000, b"#" * (1 << 21), b""], ids=["bytes", "deep", "long", ""]
)
def test_what_is_no_boards_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "boards.toml").write_bytes(data)
    with pytest.raises(BoardsError):
        load_fleet(tmp_path / "boards.toml")
    with pytest.raises(BoardsError, match="No such file"):
        load_fleet(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [("94 Mbit/s", BYTES_PER_S, 11.75e6), ("8.8ms", SECONDS, 0.0088), ("1 GiB", BYTES, 1 << 30), ("2e3 kB", BYTES, 2e6)],
)
def test_quantities(text: str, units: dict[str, float], value: float) -> None:
    assert quantity(text, units) == pytest.approx(value)
