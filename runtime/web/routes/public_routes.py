"""Serve what needs no token: the page, the description of the REST interface, and the health check."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from hyps.runtime.web.errors import Busy
from hyps.runtime.web.routes.dependencies import Services
from hyps.runtime.web.schemas import HealthView, Problem

public_router = APIRouter()
#: The folder of the page's files.
STATIC = Path(__file__).parents[1] / "static"


@public_router.get(
    "/healthz",
    tags=["health"],
    summary="Check the health",
    responses={503: {"model": Problem, "description": "The manager has ended."}},
)
def check_health(services: Services) -> HealthView:
    """Return whether the manager has a connection to its hub. The request is refused once the manager has ended."""
    if services.cluster.ended.is_set():
        raise Busy("the manager has ended; start it again")
    return HealthView(hub=services.cluster.connected)


@public_router.get("/", include_in_schema=False)
def show_page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html")


@public_router.get("/docs", include_in_schema=False)
def show_docs() -> FileResponse:
    """Return the page that describes the REST interface."""
    return FileResponse(STATIC / "docs.html")
