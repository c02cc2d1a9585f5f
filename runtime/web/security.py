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
    """ASGI middleware: security headers on every answer, and no large bodies but uploads, which count for themselves."""

    def __init__(self, app: ASGIApp, uploads: tuple[str, ...]) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limited = not (scope["method"] in ("PUT", "POST") and scope["path"].startswith(self._uploads))
        count = 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if limited and count > _BODY_BYTES:
                raise _Oversize
            return message

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                unchanging = scope["path"] in ("/", "/docs") or scope["path"].startswith("/static/")
                headers.setdefault("cache-control", "no-cache" if unchanging else "no-store")
            await send(message)

        try:
            await self._app(scope, bounded, headed)
        except _Oversize:
            await JSONResponse({"detail": "a request may be 1 MB at most"}, 413)(scope, receive, headed)


class _Oversize(Exception):
    """A body is too large."""
