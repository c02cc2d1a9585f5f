"""The web application, and the thread that serves it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.routing import Route

from hyps.runtime.errors import HubError, RuntimeFault
from hyps.runtime.web.errors import Busy, WebFault
from hyps.runtime.web.routes import routes
from hyps.runtime.web.schemas import Problem
from hyps.runtime.web.security import Guard, bearer
from hyps.runtime.web.services import WebServices

_STATIC = Path(__file__).parent / "static"
_START_S, _STOP_S = 10.0, 3


def application(desk: WebServices, token: str) -> FastAPI:
    """The page and the REST interface."""
    app = FastAPI(title="HyPS manager", version=version("hyps"), docs_url=None, redoc_url=None)
    app.include_router(routes(desk, bearer(token)))
    app.mount("/static/swagger", StaticFiles(directory=str(files("fastapi_swagger") / "resources")))
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.add_middleware(Guard, uploads=_is_upload)

    @app.get("/healthz", responses={503: {"model": Problem, "description": "the manager has ended"}})
    def health() -> dict[str, bool]:
        """Whether the manager runs, and has its hub."""
        if desk.cluster.ended.is_set():
            raise Busy("the manager has ended; start it again")
        return {"hub": desk.cluster.connected}

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html")

    @app.exception_handler(RuntimeFault)
    async def refuse(request: Request, fault: RuntimeFault) -> JSONResponse:
        return JSONResponse({"detail": str(fault)}, fault.status if isinstance(fault, WebFault) else 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": "; ".join(map(_told, error.errors()))[:1000]}, 422)

    @app.exception_handler(405)
    async def not_so(request: Request, error: Exception) -> JSONResponse:
        routes = [route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)]
        allowed = sorted({method for route in routes for method in route.methods or ()})
        return JSONResponse({"detail": f"not here; {', '.join(allowed)} are"}, 405, {"allow": ", ".join(allowed)})

    return app


def _is_upload(method: str, path: str) -> bool:
    return (method, path) == ("POST", "/api/jobs") or (method == "PUT" and path.startswith("/api/models/"))


class Server:
    """Serves ``app`` at an address, by TLS where a certificate and its key are given; a thread of its own."""

    def __init__(self, app: FastAPI, host: str, port: int, tls: tuple[Path, Path] | None) -> None:
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise HubError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --web") from None
        self.port: int = self._socket.getsockname()[1]
        files: dict[str, Any] = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, date_header=False,
            timeout_graceful_shutdown=_STOP_S, h11_max_incomplete_event_size=64 << 10, **files,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise HubError(f"--tls-cert and --tls-key are no certificate and its key: {error}") from None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, when answers that are being given are, or after some seconds."""
        self._server.should_exit = True
        if self._thread.ident:
            self._thread.join(_STOP_S + 2)


def _told(error: dict[str, Any] | Any) -> str:
    where: Sequence[object] = error["loc"][1:] or error["loc"]
    return f"{'.'.join(map(str, where))}: {error['msg']}"
