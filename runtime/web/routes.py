"""The REST interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.web import schemas
from hyps.runtime.web.errors import Busy
from hyps.runtime.web.metrics import registry
from hyps.runtime.web.services import WebServices

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PathName = Annotated[str, Path(min_length=1, max_length=100, pattern=_NAME)]
PathId = Annotated[str, Path(min_length=1, max_length=32, pattern="^[0-9a-f]+$")]
_BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": what}
    for status, what in {
        400: "the request is wrong",
        401: "the token is wrong or missing",
        404: "there is no such thing",
        409: "not as things are now",
        413: "too large",
        422: "a value is out of its range",
        503: "busy, or not ready yet",
    }.items()
}


def _file(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}


def routes(desk: WebServices, check: Callable[..., None]) -> APIRouter:
    """All of them; ``check`` is who may ask."""
    api = APIRouter(dependencies=[Depends(check)], responses=_PROBLEMS)

    @api.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    )
    def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(registry(desk.boards.view())), media_type=CONTENT_TYPE_LATEST)

    @api.get("/api/targets")
    def targets() -> list[schemas.TargetView]:
        """The devices that can be compiled for."""
        return desk.builds.targets()

    @api.get("/api/models")
    def models() -> list[schemas.ModelLine]:
        """The models that were uploaded."""
        return desk.library.models()

    @api.put("/api/models/{model}/{file}", status_code=201, openapi_extra=_BYTES)
    async def upload(model: PathName, file: PathName, request: Request) -> schemas.ModelLine:
        """Upload a model's .onnx file, or external data that it refers to."""
        line = await desk.library.upload(model, file, request.stream())
        desk.library_changed()
        return line

    @api.delete("/api/models/{model}", status_code=204)
    def delete_model(model: PathName) -> None:
        """Remove a model."""
        desk.library.delete_model(model)
        desk.library_changed()

    @api.post("/api/models/{model}/builds", status_code=202)
    def build(model: PathName, wanted: schemas.BuildRequest) -> schemas.Build:
        """Compile a model, in a process of its own."""
        return desk.build(model, wanted)

    @api.get("/api/builds")
    def builds() -> list[schemas.Build]:
        """The last compilations, the newest first."""
        return desk.builds.all()

    @api.get("/api/builds/{name}")
    def one_build(name: PathId) -> schemas.Build:
        """A compilation."""
        return desk.builds.get(name)

    @api.delete("/api/builds/{name}", status_code=204)
    def cancel(name: PathId) -> None:
        """End a compilation."""
        desk.builds.cancel(name)

    @api.get("/api/bundles")
    def bundles() -> list[schemas.BundleLine]:
        """The bundles."""
        return desk.library.bundles(desk.cluster.bundle)

    @api.get("/api/bundles/{name}")
    def one_bundle(name: PathName) -> schemas.BundleView:
        """A bundle and its partitions."""
        return desk.bundle(name)

    @api.get("/api/bundles/{name}/archive", response_class=StreamingResponse, responses=_file("application/x-tar"))
    def archive(name: PathName) -> StreamingResponse:
        """A bundle as a tar."""
        read_manifest(desk.library.bundle(name))
        shown = {"content-disposition": f'attachment; filename="{name}.tar"'}
        return StreamingResponse(desk.library.archive(name), media_type="application/x-tar", headers=shown)

    @api.delete("/api/bundles/{name}", status_code=204)
    def delete_bundle(name: PathName) -> None:
        """Remove a bundle that is not served."""
        desk.delete_bundle(name)

    @api.put("/api/served")
    def serve(wanted: schemas.Served) -> schemas.StatusView:
        """Serve another bundle."""
        desk.serve(wanted.bundle)
        return desk.boards.view()

    @api.get("/api/status")
    def status() -> schemas.StatusView:
        """How the cluster is."""
        return desk.boards.view()

    @api.get("/api/workers")
    def workers() -> list[schemas.WorkerView]:
        """The boards; those that are gone for ten minutes more."""
        return desk.boards.view().workers

    @api.put("/api/workers/{name}/drain", status_code=204)
    def drain(name: PathName) -> None:
        """Take a board's shares, and give it no more."""
        desk.cluster.drain(name, drained=True)

    @api.delete("/api/workers/{name}/drain", status_code=204)
    def undrain(name: PathName) -> None:
        """Let a board have shares again."""
        desk.cluster.drain(name, drained=False)

    @api.put("/api/placement")
    def place(wanted: schemas.Homes) -> schemas.StatusView:
        """Move shares to other boards, or have the manager place all."""
        desk.cluster.move(wanted.homes)
        return desk.boards.view()

    @api.post("/api/jobs", status_code=202, openapi_extra=_BYTES)
    async def submit(
        request: Request, name: Annotated[str, Query(min_length=1, max_length=200)] = "image"
    ) -> schemas.JobView:
        """Compute a photograph, or a .npy or .npz file."""
        desk.jobs.room()
        job, path = desk.jobs.new()
        await desk.library.receive(path, request.stream(), desk.input_bytes)
        return await asyncio.to_thread(desk.jobs.submit, job, name)

    @api.get("/api/jobs")
    def jobs() -> list[schemas.JobView]:
        """The last jobs, the newest first."""
        return desk.jobs.all()

    @api.get("/api/jobs/{name}")
    def one_job(name: PathId) -> schemas.JobView:
        """A job: its state, its five best classes, and what took how long."""
        return desk.jobs.get(name)

    @api.get("/api/jobs/{name}/outputs", response_class=FileResponse, responses=_file("application/zip"))
    def outputs(name: PathId) -> FileResponse:
        """All outputs of a job, as .npz."""
        return FileResponse(desk.jobs.outputs(name), media_type="application/zip", filename=f"{name}.npz")

    @api.get("/api/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
    async def events() -> StreamingResponse:
        """Server-sent events: status, jobs, builds, library, then each change."""
        if desk.events.full:
            raise Busy("too many pages are open; close one")
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(desk.events.read(desk.first_events), media_type="text/event-stream", headers=headers)

    return api
