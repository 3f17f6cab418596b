"""DICOMweb archives that lie, and what becomes of what they were sent; and one that is real.

As in test_proof: one study goes through one node to all of them at once, time is compressed by their configuration.
"""

import base64
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests import make
from tests.flow.proving import ALL, RESULTS, SLICES, World, all_of, retry, rules_to
from tests.flow.running import RunningNode
from tests.flow.web_liars import WebArchive
from tests.peers import Orthanc, Sender, dicom_web
from tests.wire import certificates

SEG, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
TOKEN, PASSWORD = "a-token-of-this-test", "a:password"
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()


@dataclass
class Case:
    """An archive, how deliveries to it are proven, and how that must end; as in test_proof."""

    archive: WebArchive
    ends: dict[tuple[str, str | None], int]
    holds: int
    proof: str = "seen"
    status: str | None = "0000"
    more: dict[str, Any] = field(default_factory=dict)


def other_pixels(dataset: Dataset) -> None:
    if dataset.Modality == "PT":
        dataset.PixelData = bytes(reversed(dataset.PixelData))


def no_segmentation(dataset: Dataset) -> int | None:
    return 0x0122 if dataset.SOPClassUID == SEG else None


PIXELS = {"proving": {"verify": "pixels", "attempts": 2}}
WELL = WebArchive()
CASES = {
    "honest": Case(WELL, all_of("seen"), ALL, more=PIXELS),
    "honest-accepted": Case(WebArchive(), all_of("accepted"), ALL, proof="accepted"),
    "gives-three-at-once": Case(WebArchive(page_max=3), all_of("seen"), ALL),
    "warns": Case(WebArchive(answers=lambda _: 202, warning=0xB000), all_of("seen"), ALL, status="B000"),
    "wants-a-token": Case(
        WebArchive(authorization=f"Bearer {TOKEN}"), all_of("seen"), ALL, more={"token_file": "token", **PIXELS}
    ),
    "wants-a-password": Case(
        WebArchive(authorization=BASIC), all_of("seen"), ALL, more={"user": "me", "password_file": "password"}
    ),
    "knows-us-not": Case(WebArchive(authorization="Bearer other"), all_of("failed", "not-authorised"), 0, status=None),
    "drops": Case(WebArchive(keeps=lambda _: False), all_of("failed", "not-found"), 0),
    "keeps-other-pixels": Case(
        WebArchive(alters=other_pixels),
        {("failed", "content-differs"): SLICES, ("seen", None): RESULTS},
        ALL,
        more=PIXELS,
    ),
    "is-full-for-a-while": Case(WebArchive(answers=lambda n: 503 if n < 5 else 200), all_of("seen"), ALL),
    "is-full": Case(
        WebArchive(answers=lambda _: 503), all_of("dead", "out-of-resources"), 0, proof="accepted", status=None
    ),
    "hangs-up-for-a-while": Case(WebArchive(answers=lambda n: None if n in {1, 3} else 200), all_of("seen"), ALL),
    "never-answers": Case(
        WebArchive(silence_s=5, keeps=lambda _: False),
        all_of("dead", "no-response"),
        0,
        proof="accepted",
        status=None,
        more={"timeout_s": 0.5},
    ),
    "never-ends": Case(WebArchive(endless=True), all_of("dead", "answer-too-long"), 0, status=None),
    "sends-us-on": Case(WebArchive(), all_of("failed", "redirected"), 0, status=None),
    "takes-no-segmentation": Case(
        WebArchive(reason=no_segmentation),
        {("seen", None): ALL - 1, ("failed", "sop-class-not-supported"): 1},
        ALL - 1,
        status=None,
    ),
    "takes-contours-instead": Case(
        WebArchive(reason=no_segmentation),
        {("seen", None): ALL, ("withdrawn", "sop-class-not-supported"): 1},
        ALL,
        status=None,
        more={"fall_back": {"seg": "rtstruct"}},
    ),
    "takes-nothing-large": Case(
        WebArchive(bytes_max=3000), {("failed", "too-large"): ALL}, 0, proof="accepted", status=None
    ),
    "over-tls": Case(WebArchive(), all_of("seen"), ALL, more={"tls": {"ca": "ca.pem"}}),
    "is-not-who-it-says": Case(
        WebArchive(), all_of("dead", "no-connection"), 0, status=None, more={"tls": {"ca": "other-ca.pem"}}
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("web")
    study = make.study(folder / "study", seed=72, pet_shape=(SLICES, 24, 24))
    place_secrets(folder / "node")
    CASES["sends-us-on"].archive.redirects_to = "http://127.0.0.1:1/elsewhere"
    with ExitStack() as stack:
        for case in CASES.values():
            if "tls" in case.more:
                case.archive.tls = server_tls(folder / "node")
            stack.enter_context(case.archive)
        orthanc = stack.enter_context(Orthanc(folder / "orthanc", settings=dicom_web()))
        node = RunningNode(
            folder / "node", 0, rules=rules_to(["orthanc", *CASES]), settings={"destinations": destinations(orthanc)}
        )
        stack.enter_context(node)
        Sender(node.port).send(study.pet)
        node.wait_for_jobs(1, {"done"})
        there = World(node, orthanc)
        there.wait_until_proven(ALL * (len(CASES) + 1), timeout=90)
        yield there


def place_secrets(folder: Path) -> None:
    """Token, password and certificates where the node's configuration names them."""
    folder.mkdir(parents=True)
    for name, secret in (("token", TOKEN), ("password", PASSWORD)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret + "\n")
    certificates.make(folder)
    (folder / "other").mkdir()
    certificates.make(folder / "other")
    (folder / "other" / "ca.pem").rename(folder / "other-ca.pem")


def server_tls(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "node.pem", folder / "node.key")
    return context


def destinations(orthanc: Orthanc) -> dict[str, Any]:
    found = {
        name: {
            "url": case.archive.url,
            "proof": case.proof,
            "timeout_s": 20,
            "proving": {"attempts": 2},
            "retry": retry(gives_up=any(state == "dead" for state, _ in case.ends)),
            **case.more,
        }
        for name, case in CASES.items()
    }
    patient = {"attempts": 6, "verify": "pixels"}
    url = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
    return {**found, "orthanc": {"url": url, "proof": "seen", "proving": patient, "retry": retry(gives_up=False)}}


@pytest.mark.parametrize("name", CASES)
def test_how_it_ends_with_an_archive(world: World, name: str):
    case = CASES[name]
    rows = world.deliveries(name)
    assert Counter((state, code) for state, code, _ in rows) == case.ends
    assert len(case.archive.held) == case.holds
    if case.status is not None:
        assert {status for _, _, status in rows} == {case.status}


def test_bytes_arrive_as_they_are_stored(world: World):
    stored = dict(
        world.node.rows(
            "select i.sop_uid, i.path from instance i join delivery d on d.instance_id = i.id "
            "where d.destination = 'honest'"
        )
    )
    assert set(WELL.held) == set(stored)
    for uid, content in WELL.held.items():
        assert content == (world.node.data / stored[uid]).read_bytes()


def test_contours_come_instead_of_segments(world: World):
    held = CASES["takes-contours-instead"].archive.held
    kinds = world.node.rows("select sop_class_uid, sop_uid from instance where job_id is not null")
    assert {uid for sop_class, uid in kinds if sop_class == RTSTRUCT} <= set(held)
    assert not {uid for sop_class, uid in kinds if sop_class == SEG} & set(held)
    # nobody else gets them
    assert all(
        not {u for c, u in kinds if c == RTSTRUCT} & set(case.archive.held)
        for name, case in CASES.items()
        if name != "takes-contours-instead"
    )
    text = world.node.command("jobs", "show", "1").stdout
    assert "rtstruct instead" in text


def test_a_real_archive_is_seen_with_its_pixels(world: World):
    assert Counter(world.deliveries("orthanc")) == {("seen", None, "0000"): ALL}
    assert world.orthanc.count() == ALL
    for uid, content in WELL.held.items():
        assert world.orthanc.download(uid) == content


def test_nobody_is_asked_where_a_redirection_leads(world: World):
    assert CASES["sends-us-on"].archive.served == ALL


def test_destinations_and_doctor_speak_of_them(world: World):
    rows = {one["name"]: one for one in world.node.json("destinations", "list")}
    assert rows["honest"]["address"] == WELL.url and rows["honest"]["ae_title"] is None
    assert WELL.url in world.node.command("destinations", "list").stdout
    found = world.node.command("doctor", "--config", str(world.node.config), check=False).stdout
    assert "answers QIDO-RS in" in found


def test_no_secret_and_no_uid_in_the_log(world: World):
    log = world.node.log.read_text()
    assert TOKEN not in log and PASSWORD not in log
    assert not [uid for uid in WELL.held if uid in log]
