"""Test what a worker measures of messages at its hub before it works, and that the manager gets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.worker import message_probe
from hyps.runtime.cluster.worker.hub_probe import probe_hub
from hyps.runtime.cluster.worker.introduction import introduce_board
from hyps.runtime.cluster.worker.message_probe import MessageProbe
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.errors import BoardsError, HubError
from tests.repository import ROOT

FAST = LinkRates(up_bytes_per_s=10**9, down_bytes_per_s=10**9, latency_s=1e-4)


class _Loopback:
    """A connection whose hub sends everything back, or nothing."""

    address = "mqtt://hub"

    def __init__(self, *, answers: bool = True) -> None:
        self.answers, self.sent = answers, 0
        self.returned: Callable[[bytes, Callable[[], None]], None] = lambda payload, acknowledge: None

    def publish(self, topic: str, payload: bytes, *, expiry_s: int) -> None:
        self.sent += 1
        if self.answers:
            self.returned(payload, lambda: None)


def _probe(connection: _Loopback) -> MessageProbe:
    probe = MessageProbe(connection, "probe")  # type: ignore[arg-type]
    connection.returned = probe.returned
    return probe


def test_a_message_costs_the_processor_something() -> None:
    connection = _Loopback()
    found = _probe(connection).measure(FAST)
    assert connection.sent == 28 * 4
    assert found is not None
    assert 1e-7 < found < 1e-2


def test_a_quota_makes_messages_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _probe(_Loopback()).measure(FAST)
    monkeypatch.setattr(message_probe, "_slowdown", lambda data: 100.0)
    found = _probe(_Loopback()).measure(FAST)
    assert usual is not None
    assert found is not None
    assert found > 10 * usual


def test_a_slow_link_is_spared() -> None:
    connection = _Loopback()
    slow = LinkRates(up_bytes_per_s=100_000, down_bytes_per_s=10**9, latency_s=0.1)
    assert _probe(connection).measure(slow) is None
    assert connection.sent == 0


def test_a_hub_that_sends_nothing_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_probe, "_LIMIT_S", 0.01)
    with pytest.raises(HubError, match="does not send a tensor back"):
        _probe(_Loopback(answers=False)).measure(FAST)


def test_it_is_measured_at_a_real_hub(open_hub: Join) -> None:
    found = probe_hub(open_hub, "w0", sizes=(65_536,)).message_s
    assert found is not None
    assert 1e-5 < found < 0.1


def test_a_worker_says_what_its_calibration_file_says(tmp_path: Path) -> None:
    path = tmp_path / "pi.toml"
    target = (ROOT / "compiler" / "target_data" / "rpi3b.toml").read_text("utf-8")
    figures = "network_up_bytes_per_s = 1_000_000\nnetwork_down_bytes_per_s = 2_000_000\nnetwork_latency_us = 400\n"
    path.write_text(f"message_us = 700\n{figures}{target}")
    said = introduce_board(None, path)
    assert said.message_s == pytest.approx(7e-4)
    assert said.link == LinkRates(up_bytes_per_s=1_000_000, down_bytes_per_s=2_000_000, latency_s=4e-4)
    path.write_text(target)
    assert (introduce_board(None, path).link, introduce_board(None, path).message_s) == (None, None)
    with pytest.raises(BoardsError, match="cannot read the target file"):
        introduce_board(None, tmp_path / "none.toml")
