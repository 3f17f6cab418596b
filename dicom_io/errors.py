"""Typed reasons of the DICOM rim. What happens next is decided in daemon/failures.py.

Messages may end in a log or a table: they carry tags, numbers and UIDs' roles, never a patient's name or a UID's value.
"""

from __future__ import annotations


class DicomError(Exception):
    """Base of the DICOM errors.

    code : short stable identifier, shown in tables and counted
    hint : what the operator can do about it
    """

    code = "dicom-error"
    hint = "See the log of the job."

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.hint = hint or self.hint


class UnreadableObject(DicomError):
    """A received object that cannot be read within its limits, or whose identifiers are unusable: quarantined."""

    code = "unreadable"
    hint = "The bytes are kept in quarantine; ask the sender for a good copy."


class GeometryRefused(DicomError):
    """The slices do not form one regular, right-angled volume."""

    code = "geometry"
    hint = "Re-send the complete series, or ask for a reconstruction on one regular grid."


class QuantityRefused(DicomError):
    """The numbers cannot be turned into the quantity the engine needs (no weight, no dose, unknown units …)."""

    code = "quantity"
    hint = "Correct the header at the scanner or PACS and re-send; accept it with `tracerd conflicts accept`."


class SelfTestFailed(DicomError):
    """Reference objects of a known SUV are read wrongly: no SUV that this installation computes can be trusted."""

    code = "suv-self-test"
    hint = "`tracerd doctor` names every deviation. Install a sound version, restart, then `tracerd jobs release`."


class PixelsRefused(DicomError):
    """Pixel data is missing, truncated or cannot be decoded."""

    code = "pixels"
    hint = "Re-send the series; if it is compressed, try uncompressed."


class RegionsRefused(DicomError):
    """A segmentation or structure set cannot be read, does not lie on the image, or does not say what is a tumour."""

    code = "regions"
    hint = "Draw on the PET itself, in its frame of reference, and name the regions, such as Lesion 1 or GTV."


class PeerUnreachable(DicomError):
    """No association with a peer: connection refused, time-out, rejected transient."""

    code = "peer-unreachable"
    hint = "Check host, port, AE titles and that the peer runs."


class PeerRefused(DicomError):
    """The peer refused for good: AE title not known, presentation context or SOP class not supported."""

    code = "peer-refused"
    hint = "Ask the PACS administrator to allow our AE title and the SOP classes we send."
