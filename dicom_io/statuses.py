"""What the statuses of a peer mean for us: accepted, refused for good, or worth another try; pure.

PS3.7 Annex C names the general ones; PS3.4 B.2.3 (C-STORE), C.4.1.1.4 (C-FIND), J.3 (storage commitment) the others.
"""

from __future__ import annotations

from typing import Final

STORE_SUCCESS: Final = 0x0000
STORE_WARNINGS: Final = {
    0x0111: "duplicate",
    0xB000: "coerced",
    0xB006: "elements-discarded",
    0xB007: "does-not-match-class",
}
"""PS3.4 table B.2-1: kept, but. 0x0111 (PS3.7 C) say archives that have this UID already; we never send other bytes
under it."""

REFUSED_FOR_GOOD: Final = {
    0x0106: "invalid-attribute-value",
    0x0115: "invalid-argument-value",
    0x0117: "invalid-sop-instance",
    0x0119: "class-instance-conflict",
    0x0120: "missing-attribute",
    0x0122: "sop-class-not-supported",
    0x0124: "not-authorised",
    0x0211: "unrecognised-operation",
    0x0212: "mistyped-argument",
}
"""Of any service (PS3.7 C.5): the same request will be refused again."""

REQUEST_REFUSED_FOR_GOOD: Final = REFUSED_FOR_GOOD | {
    0x0112: "no-such-sop-instance",
    0x0113: "no-such-event-type",
    0x0114: "no-such-argument",
    0x0118: "no-such-sop-class",
    0x0121: "missing-attribute-value",
    0x0123: "no-such-action",
}
"""Of N-ACTION and C-FIND. In a C-STORE response 0x0112 has no meaning and is tried again."""

NOT_TAKEN: Final = frozenset(
    {
        "too-large",
        "context-rejected",
        "media-type-refused",
        "sop-class-not-supported",
        "referenced-sop-class-not-supported",
        "does-not-match-class",
        "cannot-understand",
        "class-instance-conflict",
        "invalid-attribute-value",
        "invalid-sop-instance",
        "missing-attribute",
    }
)
"""Refusals for good that are about the object: the same peer may take another form of the same finding."""

NO_SUCH_OBJECT_INSTANCE: Final = 0x0112
COMMITMENT_FAILURES: Final = {
    0x0110: "processing-failure",
    NO_SUCH_OBJECT_INSTANCE: "no-such-object-instance",
    0x0119: "class-instance-conflict",
    0x0122: "referenced-sop-class-not-supported",
    0x0131: "duplicate-transaction-uid",
    0x0213: "resource-limitation",
}
"""Failure Reason (0008,1197) of a storage commitment report (PS3.3 C.14.1.1). Only what the peer does not have is worth
sending again."""

Judgement = tuple[str | None, bool]
"""Error code, None where it is no error; and whether a repetition cannot help."""


def judge_store(status: int) -> Judgement:
    """A C-STORE status. Statuses of no table are transient."""
    if status == STORE_SUCCESS or status in STORE_WARNINGS:
        return None, False
    if status in REFUSED_FOR_GOOD:
        return REFUSED_FOR_GOOD[status], True
    if 0xA700 <= status <= 0xA7FF:
        return "out-of-resources", False
    if 0xA900 <= status <= 0xA9FF:
        return "does-not-match-class", True
    if 0xC000 <= status <= 0xCFFF:
        return "cannot-understand", True
    return "unknown-status", False


HTTP_REFUSED_FOR_GOOD: Final = {
    400: "bad-request",
    401: "not-authorised",
    403: "not-authorised",
    404: "no-such-service",
    405: "no-such-service",
    409: "not-stored",
    410: "no-such-service",
    411: "bad-request",
    413: "too-large",
    414: "bad-request",
    415: "media-type-refused",
    501: "no-such-service",
}
"""Of any DICOMweb transaction (PS3.18 8.5): the same request will be refused again."""


def judge_http(status: int) -> Judgement:
    """An HTTP status of a DICOMweb server; redirections are not followed, and servers in trouble may recover."""
    if 200 <= status <= 299:
        return None, False
    if status in HTTP_REFUSED_FOR_GOOD:
        return HTTP_REFUSED_FOR_GOOD[status], True
    if 300 <= status <= 399:
        return "redirected", True
    return "out-of-resources" if status in {429, 503, 507} else "unable-to-process", False


def judge_request(status: int) -> Judgement:
    """The final status of an N-ACTION, C-FIND or C-GET. 0xCxxx ("unable to process") often passes with a restart."""
    if status == 0x0000:
        return None, False
    if status in REQUEST_REFUSED_FOR_GOOD:
        return REQUEST_REFUSED_FOR_GOOD[status], True
    if 0xA900 <= status <= 0xA9FF:
        return "does-not-match-class", True
    if 0xA700 <= status <= 0xA7FF or status == 0x0213:
        return "out-of-resources", False
    return "unable-to-process", False


def failure_word(reason: int | None) -> str:
    """A storage commitment Failure Reason in one word; None where the peer gave none."""
    return COMMITMENT_FAILURES.get(reason, "not-committed") if reason is not None else "not-committed"


def warning_of(status: int) -> str | None:
    """The word for a C-STORE status that accepts with a warning."""
    return STORE_WARNINGS.get(status)
