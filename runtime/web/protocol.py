"""Close connections that bring no request with a token: uvicorn by itself keeps them open for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyps.runtime.cluster.transfer.open_connections import OpenConnections

#: A connection has this long for a request with a token; one address has so many that have none, all together so many.
WAITING_S, MOST_OF_ADDRESS, MOST = 30.0, 64, 512
#: The key of a request's scope under which `LimitedProtocol.admit` is found.
ADMIT = "hyps.admit"


def waiting_connections() -> OpenConnections:
    """Return the register of one server's connections without a token."""
    return OpenConnections(most_of_owner=MOST_OF_ADDRESS, most=MOST, longest_s=WAITING_S)


class LimitedProtocol(H11Protocol):
    """One connection to the server: among those ``waiting`` unless it serves a request that has shown the token."""

    def __init__(self, waiting: OpenConnections, **options: Any) -> None:
        super().__init__(**options)
        self._waiting, self._served = waiting, self.app
        self.app = self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._waiting.remove(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def admit(self) -> None:
        """Lift the time limit of a request that has shown the token."""
        self._waiting.remove(self)

    def _wait(self) -> None:
        if not self.transport.is_closing():
            self._waiting.add(self, self.client[0] if self.client else "", self.transport.abort, self.loop.time())
            self.loop.call_later(WAITING_S + 1, lambda: self._waiting.lapse(self.loop.time()))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._served({**scope, ADMIT: self.admit}, receive, send)
