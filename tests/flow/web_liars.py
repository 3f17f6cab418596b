"""DICOMweb archives that keep their word and archives that do not: HTTP servers, each with a will of its own."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom.dataset import Dataset

LOOPBACK = "127.0.0.1"
ROOT = "/dicom-web"
DICOM_JSON = "application/dicom+json"


@dataclass
class WebArchive:
    """A DICOMweb archive. What it does not say otherwise is honest.

    answers(n) : HTTP status of the n-th store, from 0; None closes the connection without an answer
    reason(dataset) : failure reason of an instance, None where it is stored
    warning : of every stored instance
    keeps(n) : whether it really keeps what came with the n-th store
    alters : changes an object before it is kept
    authorization : the header it wants to see
    bytes_max : a larger body is answered with 413
    redirects_to : address that every store is sent on to, instead of being taken
    endless : its answer to a store never ends
    page_max : matches that it gives at once, whatever limit is asked for
    """

    answers: Callable[[int], int | None] = lambda _: 200
    reason: Callable[[Dataset], int | None] = lambda _: None
    warning: int | None = None
    keeps: Callable[[int], bool] = lambda _: True
    alters: Callable[[Dataset], None] | None = None
    authorization: str | None = None
    bytes_max: int | None = None
    redirects_to: str | None = None
    endless: bool = False
    silence_s: float = 0.0
    page_max: int = 1000
    tls: ssl.SSLContext | None = None
    held: dict[str, bytes] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    served: int = 0

    def __enter__(self) -> Self:
        archive = self
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                archive.store(self)

            def do_GET(self) -> None:
                archive.find_or_fetch(self)

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{LOOPBACK}:{self._server.server_address[1]}{ROOT}"

    def store(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        with self._lock:
            number, self.served = self.served, self.served + 1
        time.sleep(self.silence_s)
        status = self.answers(number)
        if status is None:
            request.close_connection = True
            request.connection.close()
            return
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            status = 401
        if self.bytes_max is not None and len(body) > self.bytes_max:
            status = 413
        if self.redirects_to is not None:
            respond(request, 307, b"", {"Location": f"{self.redirects_to}/studies"})
        elif self.endless:
            flood(request)
        elif status >= 300 or request.path != f"{ROOT}/studies":
            respond(request, status if request.path == f"{ROOT}/studies" else 404, b"")
        else:
            self._keep(request, number, status, part_of(body, request.headers["Content-Type"]))

    def _keep(self, request: BaseHTTPRequestHandler, number: int, status: int, content: bytes) -> None:
        dataset = pydicom.dcmread(BytesIO(content))
        uid, reason = str(dataset.SOPInstanceUID), self.reason(dataset)
        if reason is None:
            self.stored.append(uid)
            if self.keeps(number):
                if self.alters is not None:
                    self.alters(dataset)
                    changed = BytesIO()
                    dataset.save_as(changed)
                    content = changed.getvalue()
                self.held[uid] = content
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            document = {"00081198": {"vr": "SQ", "Value": [item | {"00081197": {"vr": "US", "Value": [reason]}}]}}
            respond(request, 409, json.dumps(document).encode(), {"Content-Type": DICOM_JSON})
            return
        if self.warning is not None:
            item["00081196"] = {"vr": "US", "Value": [self.warning]}
        document = {"00081199": {"vr": "SQ", "Value": [item]}}
        respond(request, status, json.dumps(document).encode(), {"Content-Type": DICOM_JSON})

    def find_or_fetch(self, request: BaseHTTPRequestHandler) -> None:
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            respond(request, 401, b"")
            return
        url = urlsplit(request.path)
        steps = url.path.removeprefix(ROOT).strip("/").split("/")
        if len(steps) == 6:
            content = self.held.get(steps[5])
            if content is None:
                respond(request, 404, b"")
            else:
                body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--x--\r\n"
                respond(request, 200, body, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'})
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        found = self._matches(steps, query)
        offset, limit = int(query.get("offset", 0)), min(self.page_max, int(query.get("limit", 1000)))
        page = found[offset : offset + limit]
        if page:
            respond(request, 200, json.dumps(page).encode(), {"Content-Type": DICOM_JSON})
        else:
            respond(request, 204, b"")

    def _matches(self, steps: Sequence[str], query: dict[str, str]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for uid, content in sorted(self.held.items()):
            dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
            wanted = query.get("00080018", uid)
            here = [str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)] == [steps[1], steps[3]]
            if here and uid == wanted:
                found.append({"00080018": {"vr": "UI", "Value": [uid]}})
        return found


def part_of(body: bytes, content_type: str) -> bytes:
    """The one part of a request as DICOMweb wants it; KeyError or ValueError where it is not."""
    words = dict(word.strip().split("=", 1) for word in content_type.split(";")[1:])
    assert content_type.startswith("multipart/related;") and words["type"] == '"application/dicom"'
    parts = body.split(b"--" + words["boundary"].encode())
    assert len(parts) == 3 and parts[0] == b"" and parts[2] == b"--\r\n"
    headers, _, content = parts[1].partition(b"\r\n\r\n")
    assert headers == b"\r\nContent-Type: application/dicom"
    return content.removesuffix(b"\r\n")


def respond(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def flood(request: BaseHTTPRequestHandler) -> None:
    """An answer of which every piece comes in time and which has no end."""
    request.send_response(200)
    request.send_header("Connection", "close")
    request.end_headers()
    request.close_connection = True
    try:
        while True:
            request.wfile.write(b" " * 65536)
    except OSError:
        return
