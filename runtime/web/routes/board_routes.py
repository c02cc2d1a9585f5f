"""Serve the cluster's status and metrics, and let the operator say which board holds which steps."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hyps.runtime.web import schemas
from hyps.runtime.web.metrics import registry
from hyps.runtime.web.routes.dependencies import Services, WorkerNamePath

board_router = APIRouter(tags=["boards"])


@board_router.get("/api/status", summary="Get the status")
def get_status(services: Services) -> schemas.StatusView:
    """Return the state of the cluster: what is served, the workers, and which of them holds which steps."""
    return services.boards.view()


@board_router.get("/api/workers", summary="List the workers")
def list_workers(services: Services) -> list[schemas.WorkerView]:
    """Return the connected workers, and those that were lost in the last ten minutes."""
    return services.boards.view().workers


@board_router.put("/api/workers/{name}/drain", status_code=204, summary="Drain a worker")
def drain_worker(name: WorkerNamePath, services: Services) -> None:
    """Move the worker's steps to other workers, and give it no more."""
    services.cluster.drain(name, drained=True)


@board_router.delete("/api/workers/{name}/drain", status_code=204, summary="Undrain a worker")
def undrain_worker(name: WorkerNamePath, services: Services) -> None:
    """Let the worker hold steps again."""
    services.cluster.drain(name, drained=False)


@board_router.put("/api/placement", summary="Place the sub-bundles")
def place_sub_bundles(request: schemas.Homes, services: Services) -> schemas.StatusView:
    """Move sub-bundles to the workers named, or let the manager place all of them, and return the new status."""
    services.cluster.move(request.homes)
    return services.boards.view()


@board_router.get(
    "/metrics",
    summary="Get the metrics",
    response_class=Response,
    responses={200: {"description": "The metrics as text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(services: Services) -> Response:
    """Return the status as Prometheus reads it."""
    return Response(generate_latest(registry(services.boards.view())), media_type=CONTENT_TYPE_LATEST)
