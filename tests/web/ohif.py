"""OHIF as a site runs it: its built application and an archive's DICOMweb, served from one origin."""

import mimetypes
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tests.peers import LOOPBACK, REPOSITORY, Orthanc
from tests.processes import free_port, missing, wait_until

BUILT = REPOSITORY / ".ohif" / "package" / "dist"
CONFIGURATION = """
window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  showStudyList: true,
  investigationalUseDialog: { option: 'never' },
  measurementTrackingMode: 'none',
  maxNumberOfWebWorkers: 1,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'archive',
    configuration: {
      friendlyName: 'Archive',
      name: 'archive',
      qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web',
      wadoUriRoot: '/dicom-web',
      imageRendering: 'wadors',
      thumbnailRendering: 'wadors',
      singlepart: 'bulkdata,video',
    },
  }],
};
"""
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""What browsers ask for before they share memory between the workers that decode images."""
HOP_BY_HOP = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}


def built() -> Path:
    """The folder of the built application; skips the test where it is missing."""
    if not (BUILT / "index.html").is_file():
        missing("OHIF is missing: tests/web/tools.sh gets it")
    return BUILT.resolve()


def application(files: Path, archive: Orthanc) -> Starlette:
    """The built application's files; below /dicom-web/ the archive; every other path is a page of the application."""
    mimetypes.add_type("application/wasm", ".wasm")
    mimetypes.add_type("text/javascript", ".mjs")
    # Orthanc closes a connection that rests, at times just as the next question is on its way: every one gets its own.
    once = httpx.Limits(max_keepalive_connections=0)
    client = httpx.AsyncClient(
        base_url=f"http://{LOOPBACK}:{archive.http_port}", timeout=60, trust_env=False, limits=once
    )

    async def dicom_web(request: Request) -> Response:
        asked = {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}
        # Bulk data are linked to under the address at which the archive was asked.
        forwarded = asked | {"host": request.headers["host"]}
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        answer = await client.request(request.method, url, headers=forwarded, content=await request.body())
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return Response(answer.content, answer.status_code, kept | ISOLATED)

    async def page(request: Request) -> Response:
        path = (files / request.url.path.lstrip("/")).resolve()
        if request.url.path == "/app-config.js":
            return Response(CONFIGURATION, media_type="text/javascript", headers=ISOLATED)
        if not path.is_relative_to(files) or not path.is_file():
            path = files / "index.html"
        return FileResponse(path, headers=ISOLATED)

    @asynccontextmanager
    async def closing_the_client(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [Route("/dicom-web/{path:path}", dicom_web, methods=["GET", "POST"]), Route("/{path:path}", page)]
    return Starlette(routes=routes, lifespan=closing_the_client)


@contextmanager
def served(archive: Orthanc) -> Iterator[str]:
    """The address at which a browser finds OHIF in front of the archive."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(application(built(), archive), host=LOOPBACK, port=port, log_level="warning")
    )
    thread = threading.Thread(target=server.run, name="ohif", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 30)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
