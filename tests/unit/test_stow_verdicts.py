"""What a response to STOW-RS means, and how the first part of an answer to WADO-RS is cut out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.dicomweb import first_part, verdict

UID, OTHER = "1.2.3", "1.2.4"


def answer(*, failed: dict[str, int | None] | None = None, stored: dict[str, int | None] | None = None) -> bytes:
    def items(reasons: dict[str, int | None], tag: str) -> list[dict[str, object]]:
        return [
            {"00081155": {"vr": "UI", "Value": [uid]}}
            | ({} if reason is None else {tag: {"vr": "US", "Value": [reason]}})
            for uid, reason in reasons.items()
        ]

    document: dict[str, object] = {}
    if failed:
        document["00081198"] = {"vr": "SQ", "Value": items(failed, "00081197")}
    if stored:
        document["00081199"] = {"vr": "SQ", "Value": items(stored, "00081196")}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, answer(stored={UID: None}), (0x0000, None, False)),
        (200, b"", (0x0000, None, False)),
        (200, b"<NativeDicomModel/>", (0x0000, None, False)),
        (200, answer(failed={UID: 0x0110}), (0x0110, "unknown-status", False)),  # processing failure may pass
        (200, answer(stored={UID: 0xB000}), (0xB000, None, False)),
        (202, answer(stored={UID: 0xB007}), (0xB007, None, False)),
        (202, answer(failed={UID: 0xA700}), (0xA700, "out-of-resources", False)),
        (202, answer(failed={UID: 0x0122}), (0x0122, "sop-class-not-supported", True)),
        (202, answer(stored={OTHER: None}), (None, "not-mentioned", False)),
        (202, answer(failed={UID: None}), (None, "unknown-status", False)),
        (202, answer(failed={UID: 0}), (0, "unknown-status", False)),
        (409, answer(failed={UID: 0xA900}), (0xA900, "does-not-match-class", True)),
        (409, answer(failed={UID: 0xC122}), (0xC122, "cannot-understand", True)),
        (409, answer(failed={UID: 0x0111}), (0x0111, None, False)),  # it has this instance already
        (409, answer(failed={OTHER: 0xC000}), (None, "not-stored", True)),
        (409, b"no", (None, "not-stored", True)),
        (400, b"", (None, "bad-request", True)),
        (401, b"", (None, "not-authorised", True)),
        (403, b"", (None, "not-authorised", True)),
        (404, b"", (None, "no-such-service", True)),
        (413, b"", (None, "too-large", True)),
        (415, b"", (None, "media-type-refused", True)),
        (307, b"", (None, "redirected", True)),
        (429, b"", (None, "out-of-resources", False)),
        (500, answer(stored={UID: None}), (None, "unable-to-process", False)),
        (503, b"", (None, "out-of-resources", False)),
        (200, b"[" * 100_000, (0x0000, None, False)),
    ],
)
def test_a_verdict(status, content, expected):
    sent = verdict(UID, status, content)
    assert (sent.status, sent.error, sent.permanent) == expected
    assert sent.sop_instance_uid == UID


@given(st.integers(100, 599), st.binary(max_size=200))
def test_only_success_is_accepted_whatever_else_comes(status, content):
    assert (
        verdict(UID, status, content).error is not None
        or status == 200
        or verdict(UID, status, content).status == 0x0111
    )


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from(["00081198", "00081199", "Value", "00081155", "00081197"]), x)
        ),
    )
)
def test_no_json_breaks_it(document):
    verdict(UID, 202, json.dumps(document).encode())


def message(body: bytes, boundary: bytes = b"abc") -> bytes:
    return b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n--" + boundary + b"--\r\n"


@given(st.binary(max_size=300).filter(lambda body: b"\r\n--abc" not in body))
def test_the_first_part_comes_out_as_it_went_in(body):
    assert first_part(message(body)) == body
    assert first_part(b"preamble\r\n" + message(body)) == body


@given(st.binary(max_size=300))
def test_rubbish_has_no_first_part_or_one_inside_it(content):
    part = first_part(content)
    assert part is None or part in content


def test_a_message_that_broke_off_has_no_part():
    whole = message(b"x" * 100)
    assert first_part(whole[:-20]) is None
