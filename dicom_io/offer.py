"""What the door offers: the SOP classes it stores and the transfer syntaxes it takes; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts

from dicom_io.upper_layer import ContextResult, ProposedContext, Role

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model (PS3.4 J.3)."""
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP instance."""
DICOM_ROOT = "1.2.840.10008."

RETIRED_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image Storage
    "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image Storage
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image Storage
    "1.2.840.10008.5.1.4.1.1.129",  # Standalone PET Curve Storage
}
"""Classes without a successor's UID that old archives of PET departments still send."""

STANDARD_STORAGE = (
    frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts) | RETIRED_STORAGE
)

UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian; before Implicit because it keeps the VR of private elements
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
)
COMPRESSED = (
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.202",  # High-Throughput JPEG 2000 Lossless, RPCL
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline: secondary captures of scanners arrive so
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.203",  # High-Throughput JPEG 2000
)
TRANSFER_SYNTAXES = UNCOMPRESSED + COMPRESSED
"""In order of preference. Not deflated (a decompression bomb before any limit can look at it), not big endian."""


def is_uid(value: str) -> bool:
    """Digits and dots, 1 to 64 of them; leading zeros of a component are forgiven, as old scanners send them."""
    return re.fullmatch(r"[0-9][0-9.]{0,63}", value) is not None


def is_storage(sop_class_uid: str) -> bool:
    """Whether objects of this class are stored: the standard's storage classes and every private class.

    Scanners send private classes within their studies (raw data, protocols); refusing them makes many fail the study.
    """
    return sop_class_uid in STANDARD_STORAGE or (is_uid(sop_class_uid) and UID(sop_class_uid).is_private)


def negotiate(context: ProposedContext) -> ContextResult:
    """Answer one proposed presentation context (PS3.8 table 9-18)."""
    offered: tuple[str, ...]
    if context.abstract_syntax in {VERIFICATION, STORAGE_COMMITMENT}:
        offered = UNCOMPRESSED
    elif is_storage(context.abstract_syntax):
        offered = TRANSFER_SYNTAXES
    else:
        return ContextResult(context.context_id, 3, UNCOMPRESSED[1])
    for transfer_syntax in offered:
        if transfer_syntax in context.transfer_syntaxes:
            return ContextResult(context.context_id, 0, transfer_syntax)
    return ContextResult(context.context_id, 4, UNCOMPRESSED[1])


def granted(roles: Iterable[Role]) -> list[Role]:
    """The role selections that are answered: in storage commitment a peer may ask, report, or both.

    Its report comes from the SCP of the service, who opens an association for it (PS3.4 J.3.3.1). For storage the
    requestor stays the SCU.
    """
    return [role for role in roles if role.sop_class_uid == STORAGE_COMMITMENT][:1]
