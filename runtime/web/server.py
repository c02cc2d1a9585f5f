"""Serve the web application on a thread."""

from __future__ import annotations

import socket
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from hyps.runtime.errors import HubError
from hyps.runtime.web.protocol import LimitedProtocol, waiting_connections

#: Seconds that answers under way have to end when the server stops.
_STOP_S = 3


class Server:
    """A server of an application at one address, with TLS if it is given a certificate and its key."""

    def __init__(self, app: FastAPI, host: str, port: int, tls: tuple[Path, Path] | None) -> None:
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise HubError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --web") from None
        self.port: int = self._socket.getsockname()[1]
        files: dict[str, Any] = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, date_header=False,
            timeout_graceful_shutdown=_STOP_S, h11_max_incomplete_event_size=64 << 10,
            http=cast(Any, partial(LimitedProtocol, waiting_connections())), **files,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise HubError(f"--tls-cert and --tls-key are not a certificate and its key: {error}") from None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after the answers under way have ended or a few seconds have passed."""
        self._server.should_exit = True
        if self._thread.ident:
            self._thread.join(_STOP_S + 2)
