"""What tracerd makes of the answers of its peers, as tables of the conformance statement.

Every status there is goes through the functions that judge it in earnest: a table cannot say anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from dicom_io.selftest import markdown
from dicom_io.statuses import (
    COMMITMENT_FAILURES,
    NO_SUCH_OBJECT_INSTANCE,
    judge_http,
    judge_request,
    judge_store,
    warning_of,
)


def reasons_heard() -> str:
    """Failure reasons of storage commitment as user."""
    again = "the same bytes are sent again, until `retry.give_up_after_s` has passed"
    failed = "the delivery has failed; the reason is in `tracerd jobs show`; `tracerd jobs resend` sends it again"
    rows = [
        (f"{reason:04X}", word.replace("-", " "), again if reason == NO_SUCH_OBJECT_INSTANCE else failed)
        for reason, word in sorted(COMMITMENT_FAILURES.items())
    ]
    return markdown(("Failure Reason (0008,1197)", "meaning", "what we do"), [*rows, ("any other, none", "", failed)])


Verdict = tuple[str, bool, bool]
"""Word, whether it is accepted, whether a repetition cannot help."""


def verdicts(judge: Callable[[int], Verdict]) -> tuple[list[tuple[str, Verdict]], Verdict]:
    """What is done with each of the 65536 statuses: runs of those treated alike, and the verdict on all others."""
    runs = [(verdict, list(run)) for verdict, run in groupby(range(0x10000), judge)]
    size = {verdict: sum(len(run) for each, run in runs if each == verdict) for verdict, _ in runs}
    others = max(size, key=lambda verdict: size[verdict])
    named = [(_codes(run), verdict) for verdict, run in runs if verdict != others]
    return named, others


def _codes(run: list[int]) -> str:
    return f"{run[0]:04X}" if len(run) == 1 else f"{run[0]:04X}–{run[-1]:04X}"


def on_store(status: int) -> Verdict:
    """What a C-STORE status does to a delivery."""
    error, permanent = judge_store(status)
    return error or warning_of(status) or "success", error is None, permanent


def on_request(status: int) -> Verdict:
    """What the final status of another request does."""
    error, permanent = judge_request(status)
    return error or "success", error is None, permanent


def statuses_heard(judge: Callable[[int], Verdict], accepted: str) -> str:
    """What becomes of every status a peer may answer; accepted : in words."""
    named, others = verdicts(judge)
    rows = [(codes, verdict[0].replace("-", " "), _deed(verdict, accepted)) for codes, verdict in named]
    rows.append(("anything else, no answer", others[0].replace("-", " "), _deed(others, accepted)))
    return markdown(("status", "meaning", "what we do"), rows)


def http_heard() -> str:
    """What becomes of every HTTP status that a DICOMweb server may answer."""
    judged: dict[Verdict, list[str]] = {}
    for status in range(200, 600):
        error, permanent = judge_http(status)
        judged.setdefault((error or "success", error is None, permanent), []).append(str(status))
    others: Verdict = ("unable-to-process", False, False)
    del judged[others]
    rows = [
        (
            ", ".join(codes) if len(codes) < 6 else f"{codes[0]} to {codes[-1]}",
            one[0].replace("-", " "),
            _deed(one, "done"),
        )
        for one, codes in judged.items()
    ]
    rows.append(("any other", "unable to process", _deed(others, "done")))
    return markdown(("HTTP status", "meaning", "what we do"), rows)


def _deed(verdict: Verdict, accepted: str) -> str:
    word, is_accepted, is_permanent = verdict
    if is_accepted:
        return accepted if word == "success" else f"{accepted}, with a warning in `tracerd status` and `jobs show`"
    return "failed for good; no retry" if is_permanent else "tried again with growing pauses"
