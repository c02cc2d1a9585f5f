"""Serve the library's bundles, and choose the one that the cluster runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.web import schemas
from hyps.runtime.web.routes.dependencies import BundleNamePath, Services, file_response

bundle_router = APIRouter(prefix="/api", tags=["bundles"])
_TAR = "application/x-tar"


@bundle_router.get("/bundles", summary="List the bundles")
def list_bundles(services: Services) -> list[schemas.BundleLine]:
    """Return the bundles in the library, and the one that the manager was started with."""
    return services.library.bundles(services.cluster.bundle)


@bundle_router.get("/bundles/{name}", summary="Get a bundle")
def get_bundle(name: BundleNamePath, services: Services) -> schemas.BundleView:
    """Return the bundle with its partitions."""
    return services.bundle(name)


@bundle_router.get(
    "/bundles/{name}/archive",
    summary="Download a bundle",
    response_class=StreamingResponse,
    responses=file_response(_TAR, "The bundle's folder as an uncompressed tar archive."),
)
def download_bundle(name: BundleNamePath, services: Services) -> StreamingResponse:
    """Return the bundle as a tar archive. Unpack it, and run the folder with `hyps-run`."""
    read_manifest(services.library.bundle(name))
    headers = {"content-disposition": f'attachment; filename="{name}.tar"'}
    return StreamingResponse(services.library.archive(name), media_type=_TAR, headers=headers)


@bundle_router.delete("/bundles/{name}", status_code=204, summary="Delete a bundle")
def delete_bundle(name: BundleNamePath, services: Services) -> None:
    """Delete the bundle and its journal. A bundle that is served cannot be deleted."""
    services.delete_bundle(name)


@bundle_router.put("/served", summary="Serve a bundle")
def serve_bundle(request: schemas.Served, services: Services) -> schemas.StatusView:
    """Serve this bundle instead of the current one, and return the new status.

    The request is refused while jobs of the current bundle are under way.
    """
    services.serve(request.bundle)
    return services.boards.view()
