"""Serve the files of sub-bundles to workers by HTTP: to each its own files, with its token, from any byte on.

Files do not go through the hub: a broker keeps whole messages in memory, and sub-bundles are large. If the hub speaks TLS,
so does this server, with a certificate made at the start; workers get its authority with their orders.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from hyps.runtime.cluster.broker.certificates import make_certificates
from hyps.runtime.cluster.transfer.open_connections import OpenConnections

_PATH = re.compile(r"/([0-9a-f]{64})\Z")
_RANGE = re.compile(r"bytes=(\d{1,15})-\Z")
_PIECE_BYTES = 1 << 18
_TIMEOUT_S = 30
#: The interval at which the server checks whether it was closed: closing takes no longer.
_POLL_S = 0.1
#: The seconds that a connection has for a request with a token, and the most connections without one.
_WAITING_S, _MOST_WAITING_OF_ADDRESS, _MOST_WAITING = 10.0, 32, 256
#: The most downloads at a time: a worker fetches one file after the other.
_MOST_DOWNLOADS_OF_WORKER, _MOST_DOWNLOADS = 8, 1024
#: A download that leaves inferences half of the link pauses after each piece for as long as that took, so many seconds at
#: most. What it has handed to the kernel delays tensors: so many bytes take 6 ms by a link of 94 Mbit/s; Linux doubles them.
_LONGEST_PAUSE_S, _GENTLE_BUFFER_BYTES = 1.0, 1 << 16
_log = logging.getLogger(__name__)

#: What a worker may fetch, by sha256: a file, or a document in memory.
GrantedFiles = Mapping[str, Path | bytes]


class FileServer:
    """A server of files at ``host``, on a port that the system chooses, until it is closed."""

    def __init__(self, host: str, *, tls: bool) -> None:
        self._grants: dict[str, tuple[str, GrantedFiles]] = {}
        #: Whether inferences go on meanwhile, so that downloads leave them half of the link.
        self.is_gentle = False
        self.authority: str | None = None
        self._server = _Server((host, 0), self._find, lambda: self.is_gentle)
        if tls:
            self._server.socket = self._wrapped(host)
        place = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{place}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="files", daemon=True).start()

    def grant(self, worker: str, files: GrantedFiles) -> str:
        """Let a worker fetch these files and no others; return its token."""
        token = self._grants[worker][0] if worker in self._grants else secrets.token_urlsafe(24)
        self._grants = {**self._grants, worker: (token, files)}
        return token

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _find(self, token: str, sha256: str) -> tuple[str, Path | bytes | None]:
        """Return the worker that has this token, and its file of this sha256, if there are such."""
        for worker, (own, files) in self._grants.items():
            if hmac.compare_digest(own.encode(), token.encode()):
                return worker, files.get(sha256)
        return "", None

    def _wrapped(self, host: str) -> ssl.SSLSocket:
        """Return the server's socket with TLS, by a certificate for ``host``."""
        certificates = make_certificates([host])
        self.authority = certificates.authority.decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.NamedTemporaryFile(suffix=".pem") as pem:  # ssl reads keys only from files; only we can read this one
            pem.write(certificates.hub + certificates.hub_key)
            pem.flush()
            context.load_cert_chain(pem.name)
        return context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], find: Any, is_gentle: Callable[[], bool]) -> None:
        self.find, self.is_gentle = find, is_gentle
        self.waiting = OpenConnections(most_of_owner=_MOST_WAITING_OF_ADDRESS, most=_MOST_WAITING, longest_s=_WAITING_S)
        self.downloads = OpenConnections(most_of_owner=_MOST_DOWNLOADS_OF_WORKER, most=_MOST_DOWNLOADS)
        super().__init__(address, _Handler)

    def service_actions(self) -> None:
        """Close connections that have waited for too long; called at every check for the end."""
        self.waiting.lapse(monotonic())

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.info("a worker's download broke off")


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server: _Server

    def setup(self) -> None:
        """Register the connection: it has a few seconds for a request with a token."""
        super().setup()
        self.server.waiting.add(self.connection, str(self.client_address[0]), self._cut_off, monotonic())

    def finish(self) -> None:
        """Forget the connection."""
        for register in (self.server.waiting, self.server.downloads):
            register.remove(self.connection)
        super().finish()

    def _cut_off(self) -> None:
        """End the connection (on any thread): its own thread then reads its end."""
        self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Send a file, or the rest of it from the byte that the request names."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        path = _PATH.match(self.path)
        worker, found = self.server.find(token, path[1]) if path else ("", None)
        if found is None:
            self.send_error(404)
            return
        self.server.waiting.remove(self.connection)
        self.server.downloads.add(self.connection, worker, self._cut_off, monotonic())
        total = len(found) if isinstance(found, bytes) else found.stat().st_size
        requested = _RANGE.match(self.headers.get("Range", ""))
        start = min(int(requested[1]), total) if requested else 0
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(total - start))
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if isinstance(found, bytes):
            self.wfile.write(found[start:])
            return
        if self.server.is_gentle():
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _GENTLE_BUFFER_BYTES)
        with found.open("rb") as stream:
            stream.seek(start)
            while piece := stream.read(_PIECE_BYTES):
                began = monotonic()
                self.wfile.write(piece)
                if self.server.is_gentle():
                    sleep(min(monotonic() - began, _LONGEST_PAUSE_S))

    def log_message(self, format: str, *values: Any) -> None:
        """Log at the lowest level: the library's lines name no worker."""
        _log.debug(format, *values)


def local_address(peer: str, port: int) -> str:
    """Return this machine's address on the way to ``peer``: the one by which others on that network reach it."""
    family = socket.getaddrinfo(peer, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family[0], socket.SOCK_DGRAM) as probe:
        probe.connect(family[4])
        return str(probe.getsockname()[0])
