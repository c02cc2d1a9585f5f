"""Who may ask, how much may come, and what a browser is told to forbid."""

import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Requests but uploads.
_BODY_BYTES = 1 << 20
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


def bearer(token: str) -> Callable[..., None]:
    """A dependency that lets in who has the token."""
    scheme = HTTPBearer(auto_error=False, description="the token that hyps-manager printed when it started")

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(
                401,
                "the token is wrong or missing; it is in the link that hyps-manager printed",
                {"www-authenticate": "Bearer"},
            )

    return check


class Guard:
    """ASGI middleware: security headers on every answer, and no large bodies but ``uploads``, which count for themselves."""

    def __init__(self, app: ASGIApp, uploads: Callable[[str, str], bool]) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                unchanging = scope["path"] in ("/", "/docs") or scope["path"].startswith("/static/")
                headers.setdefault("cache-control", "no-cache" if unchanging else "no-store")
            await send(message)

        if self._uploads(scope["method"], scope["path"]):
            await self._app(scope, receive, headed)
        elif (read := await _read(receive)) is None:
            await JSONResponse({"detail": "a request may be 1 MB at most"}, 413)(scope, receive, headed)
        else:
            await self._app(scope, _again(read, receive), headed)


async def _read(receive: Receive) -> list[Message] | None:
    """A request's messages; None where they are too large."""
    read, count = [await receive()], 0
    while read[-1]["type"] == "http.request":
        count += len(read[-1].get("body", b""))
        if count > _BODY_BYTES:
            return None
        if not read[-1].get("more_body"):
            break
        read.append(await receive())
    return read


def _again(read: list[Message], receive: Receive) -> Receive:
    """Receives what was read, then what follows."""
    left = iter(read)

    async def again() -> Message:
        return next(left, None) or await receive()

    return again
