"""Bound the size of requests, and set the security headers of every answer."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The largest body of a request that is not an upload.
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


class Guard:
    """ASGI middleware that sets security headers and refuses large bodies.

    It leaves the requests that `uploads(method, path)` names to their routes, which count the bytes as they arrive.
    """

    def __init__(self, app: ASGIApp, uploads: Callable[[str, str], bool]) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                cacheable = scope["path"] in ("/", "/docs") or scope["path"].startswith("/static/")
                headers.setdefault("cache-control", "no-cache" if cacheable else "no-store")
            await send(message)

        if self._uploads(scope["method"], scope["path"]):
            await self._app(scope, receive, send_with_headers)
        elif (messages := await _read(receive)) is None:
            refusal = JSONResponse({"detail": "the request is larger than 1 MB; send less"}, 413)
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, _replay(messages, receive), send_with_headers)


async def _read(receive: Receive) -> list[Message] | None:
    """Return a request's messages, or None if its body is too large."""
    messages, count = [await receive()], 0
    while messages[-1]["type"] == "http.request":
        count += len(messages[-1].get("body", b""))
        if count > _BODY_BYTES:
            return None
        if not messages[-1].get("more_body"):
            break
        messages.append(await receive())
    return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a `receive` that gives these messages first, then those that follow."""
    remaining = iter(messages)

    async def receive_again() -> Message:
        return next(remaining, None) or await receive()

    return receive_again
