"""Test that downloads leave room on the link while inferences go on, and take all of it otherwise."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hyps.runtime.cluster.transfer import file_server
from hyps.runtime.cluster.transfer.file_server import FileServer
from tests.waiting import PATIENCE_S

_PIECES = 6


@pytest.mark.parametrize("is_gentle", [False, True])
def test_a_download_pauses_while_inferences_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gentle: bool) -> None:
    """It pauses after every piece for no longer than the piece took, and sends every byte."""
    pauses: list[float] = []
    monkeypatch.setattr(file_server, "sleep", pauses.append)
    content = os.urandom(_PIECES << 18)
    (tmp_path / "weights").write_bytes(content)
    server = FileServer("127.0.0.1", tls=False)
    try:
        server.is_gentle = is_gentle
        token = server.grant("w0", {"1" * 64: tmp_path / "weights"})
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as worker:
            worker.settimeout(PATIENCE_S)
            worker.sendall(b"GET /" + b"1" * 64 + f" HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: worker.recv(1 << 16), b""))
    finally:
        server.close()
    assert answer.endswith(content)
    assert len(pauses) == (_PIECES if is_gentle else 0)
    assert all(0 <= pause <= 1 for pause in pauses)
