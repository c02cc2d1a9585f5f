"""Test that connections without a token, and pages, are bounded: the manager answers those who have something to ask."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus

import pytest
import requests
from fastapi import Depends, FastAPI

from hyps.runtime.web import protocol
from hyps.runtime.web.routes.dependencies import check_token
from hyps.runtime.web.server import Server
from tests.runtime.cluster.transfer.test_open_connections import is_closed
from tests.runtime.web.conftest import Web
from tests.waiting import PATIENCE_S, wait_for

TOKEN = "t" * 32


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve one protected route; a connection without a token is closed after a second."""
    monkeypatch.setattr(protocol, "WAITING_S", 1.0)
    app = FastAPI()
    app.state.token = TOKEN
    app.add_api_route("/", lambda: "here", dependencies=[Depends(check_token)])
    server = Server(app, "127.0.0.1", 0, None)
    server.start()
    yield server.port
    server.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf"],
    ids=["idle", "half a request", "half a body"],
)
def test_idle_connections_are_closed(port: int, sent: bytes) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
        for connection in idle:
            with suppress(ConnectionError):  # it is closed already
                connection.sendall(sent)
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = requests.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == HTTPStatus.OK
        wait_for("the end of the idle connections", lambda: sum(map(is_closed, idle)) == len(idle))


def test_many_event_streams_are_refused(start_web: Callable[..., Web]) -> None:
    """One program opens more streams than there may be pages; when it ends, a page is served again."""
    web = start_web(0, bundle=False)
    headers = {"authorization": f"Bearer {web.token}"}

    def follow() -> requests.Response:
        return requests.get(f"{web.url}/api/events", headers=headers, stream=True, timeout=PATIENCE_S)

    streams = [follow() for _ in range(80)]
    codes = [stream.status_code for stream in streams]
    assert (codes.count(200), codes.count(503)) == (50, 30)
    assert web.get("/api/status")["state"] == "idle"
    for stream in streams:
        stream.close()

    def is_served() -> bool:
        with follow() as stream:
            return stream.status_code == HTTPStatus.OK

    wait_for("room for a page", is_served)
