"""Test that a server's connections are bounded: by their owner, in all, and in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from hyps.runtime.cluster.transfer import file_server
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.cluster.transfer.open_connections import OpenConnections
from tests.waiting import PATIENCE_S, wait_for


def test_the_oldest_of_the_owner_goes() -> None:
    closed: list[str] = []
    register = OpenConnections(most_of_owner=2, most=4)
    for name, owner in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a")):
        register.add(name, owner, partial(closed.append, name), 0)
    assert closed == ["a1"]
    register.remove("a2")
    register.add("a4", "a", lambda: closed.append("a4"), 0)
    assert closed == ["a1"]


def test_in_all_the_owner_of_most_loses_one() -> None:
    closed: list[str] = []
    register = OpenConnections(most_of_owner=3, most=4)
    for name, owner in (("b1", "b"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("c1", "c")):
        register.add(name, owner, partial(closed.append, name), 0)
    assert (closed, len(register)) == (["a1"], 4)


def test_nobody_waits_for_ever() -> None:
    closed: list[str] = []
    register = OpenConnections(most_of_owner=9, most=9, longest_s=10)
    register.add("old", "a", lambda: closed.append("old"), 0)
    register.add("new", "a", lambda: closed.append("new"), 5)
    register.lapse(10)
    assert closed == []
    register.lapse(11)
    assert (closed, len(register)) == (["old"], 1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(file_server, "_WAITING_S", 1.0)
    made = FileServer("127.0.0.1", tls=False)
    yield made
    made.close()


def address(server: FileServer) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            return connection.recv(1) == b""
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("sent", [b"", b"GET /" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n"], ids=["idle", "half a request"])
def test_the_file_server_serves_workers_among_idle_connections(server: FileServer, sent: bytes) -> None:
    """Most idle connections are closed as soon as there are more, and the rest after a while."""
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address(server))) for _ in range(300)]
        for connection in idle:
            with suppress(ConnectionError):  # it is closed already
                connection.sendall(sent)
        document = b"x" * 1000
        token = server.grant("w0", {"1" * 64: document})
        with socket.create_connection(address(server)) as worker:
            worker.settimeout(PATIENCE_S)
            worker.sendall(b"GET /" + b"1" * 64 + f" HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: worker.recv(4096), b""))
        assert answer.endswith(document)
        wait_for("the end of all idle connections", lambda: all(map(is_closed, idle)))


def test_a_trickle_is_not_a_request(server: FileServer) -> None:
    """A byte now and then does not keep a connection open."""
    with socket.create_connection(address(server)) as connection:
        until = time.monotonic() + PATIENCE_S
        with suppress(ConnectionError):
            while not is_closed(connection):
                assert time.monotonic() < until
                connection.setblocking(True)
                connection.sendall(b"G")
                time.sleep(0.1)
