"""Serve uploaded models, and compile them into bundles."""

from __future__ import annotations

from fastapi import APIRouter, Request

from hyps.runtime.web import schemas
from hyps.runtime.web.routes.dependencies import FILE_BODY, BuildIdPath, FileNamePath, ModelNamePath, Services

model_router = APIRouter(prefix="/api", tags=["models"])


@model_router.get("/targets", summary="List the targets")
def list_targets(services: Services) -> list[schemas.TargetView]:
    """Return the devices that this manager can compile for."""
    return services.builds.targets()


@model_router.get("/models", summary="List the models")
def list_models(services: Services) -> list[schemas.ModelLine]:
    """Return the uploaded models, sorted by name."""
    return services.library.models()


@model_router.put("/models/{model}/{file}", status_code=201, summary="Upload a model's file", openapi_extra=FILE_BODY)
async def upload_file(model: ModelNamePath, file: FileNamePath, request: Request, services: Services) -> schemas.ModelLine:
    """Store the body as a file of the model: its .onnx file, external data that it refers to, or `labels.txt`.

    An existing file of this name is replaced, once the upload is complete.
    """
    line = await services.library.upload(model, file, request.stream())
    services.library_changed()
    return line


@model_router.delete("/models/{model}", status_code=204, summary="Delete a model")
def delete_model(model: ModelNamePath, services: Services) -> None:
    """Delete the model and all its files. Bundles compiled from it stay."""
    services.library.delete_model(model)
    services.library_changed()


@model_router.post("/models/{model}/builds", status_code=202, summary="Compile a model")
def start_build(model: ModelNamePath, request: schemas.BuildRequest, services: Services) -> schemas.Build:
    """Start to compile the model in its own process, after the compilations requested before.

    GET /api/builds/{id} tells how far it is; the new bundle appears in GET /api/bundles.
    """
    return services.build(model, request)


@model_router.get("/builds", summary="List the compilations")
def list_builds(services: Services) -> list[schemas.Build]:
    """Return the last compilations, the newest first."""
    return services.builds.all()


@model_router.get("/builds/{id}", summary="Get a compilation")
def get_build(id: BuildIdPath, services: Services) -> schemas.Build:
    """Return the compilation's state and, once it is done, its plan."""
    return services.builds.get(id)


@model_router.delete("/builds/{id}", status_code=204, summary="Cancel a compilation")
def cancel_build(id: BuildIdPath, services: Services) -> None:
    """End the compilation if it waits or runs. A bundle of the same name stays as it was."""
    services.builds.cancel(id)
