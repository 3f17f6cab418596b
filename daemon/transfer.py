"""`tracerd send`: DICOM files to a peer as they are, with an account of every one that it did not take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from config.destinations import DimseDestination
from daemon.commands import CannotDo
from daemon.terminal import watched
from dicom_io.folder import files_below
from dicom_io.sender import Outgoing, Sent, send


def send_files(paths: Iterable[Path], destination: DimseDestination) -> dict[str, Any]:
    """Send every DICOM file at or below the paths over one association.

    Returns
    -------
    {"sent", "failed", "skipped", "failures": [{"file", "status", "error", "comment"}]}; skipped are no DICOM files

    Raises
    ------
    CannotDo
        No DICOM file is there.
    dicom_io.errors.PeerUnreachable, dicom_io.errors.PeerRefused
        Nothing was sent.
    """
    files = [file.path for file in files_below(paths)]
    outgoing = [one for one in map(outgoing_file, files) if one is not None]
    if not outgoing:
        raise CannotDo(f"expected DICOM files to send, got none among {len(files)} files")
    answers = watched(send(outgoing, destination), "sending", len(outgoing))
    failures = [failure(one, answer) for one, answer in zip(outgoing, answers, strict=True) if answer.error is not None]
    return {
        "sent": len(outgoing) - len(failures),
        "failed": len(failures),
        "skipped": len(files) - len(outgoing),
        "failures": failures,
    }


def outgoing_file(path: Path) -> Outgoing | None:
    """What the sender needs to know of a file; None where it is no DICOM file or names no instance."""
    try:
        meta = dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
    except InvalidDicomError:
        return None
    named = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    if not all(keyword in meta for keyword in named):
        return None
    sop_class_uid, sop_instance_uid, transfer_syntax_uid = (str(meta[keyword].value) for keyword in named)
    return Outgoing(path, sop_class_uid, sop_instance_uid, transfer_syntax_uid)


def failure(file: Outgoing, answer: Sent) -> dict[str, Any]:
    """Why one file was not taken."""
    status = None if answer.status is None else f"{answer.status:04X}"
    return {"file": str(file.path), "status": status, "error": answer.error, "comment": answer.comment}
