"""DICOMweb (PS3.18): stored files go out by STOW-RS byte for byte, are found by QIDO-RS and fetched by WADO-RS.

One request an instance: each gets its own verdict, and what is being sent never fills the memory. Redirections are not
followed, and no proxy of the environment is used: patients' data goes where the configuration says and nowhere else.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from config.destinations import WebDestination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.query import MATCHES_MAX, Wanted
from dicom_io.sender import COMMENT_CHARACTERS_MAX, SLOWEST_BYTES_PER_S, Outgoing, Sent
from dicom_io.statuses import judge_http, judge_store
from dicom_io.tls import client_context

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
PIECE_BYTES: Final = 1024 * 1024
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest answer to a store or a search that is read; one to a single object takes a few kilobytes."""
PAGE: Final = 1000
"""Matches asked for at once."""
SECRET_BYTES_MAX: Final = 64 * 1024

SOP_INSTANCE_UID, REFERENCED_SOP_INSTANCE_UID = "00080018", "00081155"
REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE = "00081199", "00081198"
WARNING_REASON, FAILURE_REASON = "00081196", "00081197"
STORED: Final = (200, 202)
"""PS3.18 table 10.5.3-1: stored; or accepted with warnings or failures, which the answer names."""
ANSWERED: Final = (*STORED, 409)
"""Statuses whose answer says something of each instance; 409 is that none was stored."""


def store(files: Sequence[Outgoing], destination: WebDestination) -> Iterator[Sent]:
    """Send files by STOW-RS in their order; yields a verdict per file as soon as it is known (PS3.18 10.5).

    Where the connection fails, the rest of the files fail with it, not for good.

    Raises
    ------
    PeerUnreachable
        Before the first verdict: token, password or certificate cannot be read.
    """
    lost: str | None = None
    with connected(destination) as client:
        for file in files:
            if lost is not None:
                yield Sent(file.sop_instance_uid, None, lost)
                continue
            verdict = _store(client, file, float(destination.timeout_s))
            if verdict.status is None and verdict.error in {"no-connection", "no-response"}:
                lost = verdict.error
            yield verdict


def find(destination: WebDestination, wanted: Sequence[Wanted]) -> set[str]:
    """Which of these instances a server finds, by SOP Instance UID: QIDO-RS at the level of instances (PS3.18 10.6).

    Raises
    ------
    PeerUnreachable
        No connection, no answer, or a refusal that may pass.
    PeerRefused
        A refusal for good.
    """
    found: set[str] = set()
    with connected(destination) as client:
        for series in sorted({one.series for one in wanted}):
            members = {one.sop_instance_uid for one in wanted if one.series == series}
            found |= members & _matches(client, series, members)
    return found


def fetch(destination: WebDestination, wanted: Sequence[Wanted], folder: Path) -> dict[str, Path]:
    """Get instances back by WADO-RS as files in a folder: SOP Instance UID → file of those that came (PS3.18 10.4).

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `find`; that an instance is not there is no error.
    """
    came: dict[str, Path] = {}
    with connected(destination) as client:
        for one in wanted:
            path = folder / f"{len(came)}.dcm"
            if _retrieve(client, one, path):
                came[one.sop_instance_uid] = path
    return came


def ask_for_studies(destination: WebDestination) -> float:
    """Search for one study, whichever; the seconds from connecting to the answer.

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `find`.
    """
    started = time.monotonic()
    with connected(destination) as client:
        _search(client, "/studies", {"limit": "1"})
    return time.monotonic() - started


@contextmanager
def connected(destination: WebDestination) -> Iterator[httpx.Client]:
    """A client of one server, with its trust and its credentials."""
    headers, login = {}, None
    if destination.token_file is not None:
        headers["Authorization"] = f"Bearer {_secret(destination.token_file)}"
    if destination.user is not None and destination.password_file is not None:
        login = httpx.BasicAuth(destination.user, _secret(destination.password_file))
    verify = True if destination.tls is None else client_context(destination.tls)
    with httpx.Client(
        base_url=destination.url,
        headers=headers,
        auth=login,
        verify=verify,
        timeout=float(destination.timeout_s),
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield client


def _secret(path: Path) -> str:
    """A token or password: the first line of its file."""
    try:
        with path.open("rb") as file:
            return file.read(SECRET_BYTES_MAX).decode("utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        message = f"the file with the token or password of the destination: {type(error).__name__}"
        raise PeerUnreachable(message, code="login-file", hint="See token_file or password_file.") from error


# --- STOW-RS --------------------------------------------------------------------------------------------------------


def _store(client: httpx.Client, file: Outgoing, timeout_s: float) -> Sent:
    uid, boundary = file.sop_instance_uid, uuid.uuid4().hex
    begin = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    end = f"\r\n--{boundary}--\r\n".encode()
    try:
        size = file.path.stat().st_size
        response = _answer(
            client,
            client.build_request(
                "POST",
                "/studies",
                content=_body(file.path, begin, end),
                headers={
                    "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
                    "Content-Length": str(len(begin) + size + len(end)),
                    "Accept": DICOM_JSON,
                },
                timeout=timeout_s + size / SLOWEST_BYTES_PER_S,
            ),
        )
    except OSError:
        return Sent(uid, None, "file-unreadable")
    except PeerUnreachable as error:
        return Sent(uid, None, error.code, comment=str(error))
    return verdict(uid, *response)


def _body(path: Path, begin: bytes, end: bytes) -> Iterator[bytes]:
    yield begin
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
    yield end


def verdict(sop_instance_uid: str, status: int, content: bytes) -> Sent:
    """What a response to a store says of the one instance that was sent; pure.

    A failure that the answer names counts more than the HTTP status. Its reasons are those of C-STORE (PS3.18
    10.5.3.2, table I.2-2). `Sent.status` is the reason of a failure or a warning, and 0 where there is neither.
    """
    answer = _json(content)
    if status in ANSWERED and isinstance(answer, dict):
        failed = _reasons(answer, FAILED_SOP_SEQUENCE, FAILURE_REASON)
        stored = _reasons(answer, REFERENCED_SOP_SEQUENCE, WARNING_REASON)
        if sop_instance_uid in failed:
            reason = failed[sop_instance_uid]
            error, permanent = judge_store(reason) if reason else ("unknown-status", False)
            return Sent(sop_instance_uid, reason, error, permanent)
        if sop_instance_uid in stored:
            return Sent(sop_instance_uid, stored[sop_instance_uid] or 0x0000, None)
    if status == 200:
        return Sent(sop_instance_uid, 0x0000, None)
    error, permanent = judge_http(status)
    words = f"HTTP status {status}"
    return Sent(sop_instance_uid, None, error or "not-mentioned", permanent, words[:COMMENT_CHARACTERS_MAX])


def _reasons(answer: dict[str, Any], sequence: str, reason: str) -> dict[str, int | None]:
    """SOP Instance UID → reason, of the items of a sequence in the DICOM JSON model (PS3.18 F)."""
    found: dict[str, int | None] = {}
    for item in _values(answer, sequence):
        uids, reasons = _values(item, REFERENCED_SOP_INSTANCE_UID), _values(item, reason)
        if uids:
            found[str(uids[0])] = reasons[0] if reasons and isinstance(reasons[0], int) else None
    return found


def _values(item: object, tag: str) -> list[Any]:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


# --- QIDO-RS and WADO-RS --------------------------------------------------------------------------------------------


def _matches(client: httpx.Client, series: tuple[str, str], members: set[str]) -> set[str]:
    """The SOP Instance UIDs a server lists for a series; a single one is asked for by its UID."""
    path = f"/studies/{series[0]}/series/{series[1]}/instances"
    one = {SOP_INSTANCE_UID: next(iter(members))} if len(members) == 1 else {}
    found: set[str] = set()
    for offset in range(0, MATCHES_MAX, PAGE):
        page = _search(client, path, {**one, "limit": str(PAGE), "offset": str(offset)})
        named = {str(uid) for match in page for uid in _values(match, SOP_INSTANCE_UID)[:1]}
        if not named - found:  # the end; or a server that knows no offset and begins anew
            return found
        found |= named
        if len(page) < PAGE:
            return found
    raise PeerUnreachable(f"QIDO-RS: more than {MATCHES_MAX} answers for one series", code="too-many-answers")


def _search(client: httpx.Client, path: str, query: dict[str, str]) -> list[Any]:
    request = client.build_request("GET", path, params=query, headers={"Accept": DICOM_JSON})
    status, content = _answer(client, request)
    if status == 204:
        return []
    if status != 200:
        _refuse("QIDO-RS", status)
    answer = _json(content)
    if not isinstance(answer, list):
        raise PeerUnreachable("QIDO-RS: the answer is no list of the DICOM JSON model", code="answer-unreadable")
    return answer


def _retrieve(client: httpx.Client, one: Wanted, path: Path) -> bool:
    """Write one instance to a file as it came; whether it is there."""
    url = f"/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
    accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
    request = client.build_request("GET", url, headers={"Accept": accept})
    limit = 2 * one.size + ANSWER_BYTES_MAX
    status, content = _answer(client, request, limit)
    if status in {404, 410}:
        return False
    if status != 200:
        _refuse("WADO-RS", status)
    part = first_part(content)
    if part is None:
        raise PeerUnreachable("WADO-RS: the answer is no multipart message", code="answer-unreadable")
    path.write_bytes(part)
    return True


def first_part(content: bytes) -> bytes | None:
    """The body of the first part of a multipart message (RFC 2046 5.1), by the boundary it begins with; pure."""
    begin = content.find(b"--")
    line_end = content.find(b"\r\n", begin)
    headers_end = content.find(b"\r\n\r\n", line_end)
    if begin < 0 or line_end < 0 or headers_end < 0:
        return None
    delimiter = b"\r\n" + content[begin:line_end].rstrip()
    end = content.find(delimiter, headers_end + 4)
    return None if end < 0 else content[headers_end + 4 : end]


def _refuse(what: str, status: int) -> None:
    error, permanent = judge_http(status)
    kind = PeerRefused if permanent else PeerUnreachable
    raise kind(f"{what}: answered HTTP status {status}", code=error or "unknown-status")


def _answer(client: httpx.Client, request: httpx.Request, limit: int = ANSWER_BYTES_MAX) -> tuple[int, bytes]:
    """Status and body of a response, no more than `limit` bytes of it.

    Raises
    ------
    PeerUnreachable
        No connection, no answer in time, or one that is longer.
    """
    try:
        response = client.send(request, stream=True)
        try:
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > limit:
                    raise PeerUnreachable(f"the answer is longer than {limit} bytes", code="answer-too-long")
        finally:
            response.close()
    except httpx.ConnectError as error:
        message = "no connection: refused, timed out, or TLS failed"
        raise PeerUnreachable(message, code="no-connection") from error
    except (httpx.TimeoutException, httpx.TransportError, httpx.DecodingError) as error:
        raise PeerUnreachable(f"no answer: {type(error).__name__}", code="no-response") from error
    return response.status_code, bytes(content)
