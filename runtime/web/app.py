"""Build the web application: routes, static files, security headers, and one-line answers for errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any, cast

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.web.errors import WebFault
from hyps.runtime.web.routes import PROTECTED_ROUTERS, public_router
from hyps.runtime.web.routes.dependencies import PROBLEMS, check_token
from hyps.runtime.web.routes.public_routes import STATIC
from hyps.runtime.web.security import Guard
from hyps.runtime.web.services import WebServices

_DESCRIPTION = """\
Compile models, serve bundles, watch the boards, and compute inputs.

Every request but the health check needs the token that `hyps-manager` printed: `Authorization: Bearer TOKEN`.
A refusal is JSON with one line, `detail`, that says what to do.
"""


def application(services: WebServices, token: str) -> FastAPI:
    """Return the application that serves the page and the REST interface to whoever has the token."""
    app = FastAPI(
        title="HyPS manager",
        description=_DESCRIPTION,
        version=version("hyps"),
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            RuntimeFault: _answer_fault,
            RequestValidationError: _answer_invalid_value,
            405: _answer_wrong_method,
        },
    )
    app.state.services, app.state.token = services, token
    for router in PROTECTED_ROUTERS:
        app.include_router(router, dependencies=[Depends(check_token)], responses=PROBLEMS)
    app.include_router(public_router)
    app.mount("/static/swagger", StaticFiles(directory=str(files("fastapi_swagger") / "resources")))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, uploads=_is_upload)
    return app


def _is_upload(method: str, path: str) -> bool:
    return (method, path) == ("POST", "/api/jobs") or (method == "PUT" and path.startswith("/api/models/"))


async def _answer_fault(request: Request, fault: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(fault)}, fault.status if isinstance(fault, WebFault) else 400)


async def _answer_invalid_value(request: Request, error: Exception) -> JSONResponse:
    problems = cast(RequestValidationError, error).errors()
    return JSONResponse({"detail": "; ".join(map(_sentence, problems))[:1000]}, 422)


def _sentence(problem: Mapping[str, Any]) -> str:
    """Return a validation error as text; the first item of its location is the part of the request."""
    location: Sequence[object] = problem["loc"][1:] or problem["loc"]
    return f"{'.'.join(map(str, location))}: {problem['msg']}"


async def _answer_wrong_method(request: Request, error: Exception) -> JSONResponse:
    """Name the methods of this path; Starlette's own answer names those of the first route alone."""
    app: FastAPI = request.app
    paths = app.openapi()["paths"]
    matches = [template for template in paths if compile_path(template)[0].match(request.url.path)]
    if matches:  # a template with fewer parameters is the more specific one
        methods = sorted(map(str.upper, paths[min(matches, key=lambda template: template.count("{"))]))
    else:
        methods = [(cast(HTTPException, error).headers or {}).get("Allow", "GET")]
    allowed = ", ".join(methods)
    return JSONResponse({"detail": f"{request.method} is not possible here; use {allowed}"}, 405, {"allow": allowed})
