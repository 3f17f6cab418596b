"""Archives that lie, and what becomes of what they were sent: state, reason, and what they hold.

One study goes through one node to all of them at once; each is a destination of its own, and time is compressed by
their configuration.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.sop_class import Comprehensive3DSRStorage, PositronEmissionTomographyImageStorage

from tests import make
from tests.flow.liars import Archive
from tests.flow.proving import ALL, RESULTS, SLICES, World, all_of, retry, rules_to
from tests.flow.running import RunningNode
from tests.peers import Orthanc, Sender
from tests.processes import free_port, wait_until

PROVING = {"same_association_s": 2, "report_s": 3, "attempts": 2}


@dataclass
class Case:
    """An archive, how the node is to prove deliveries to it, and how that must end.

    ends : (state, reason code) → instances; holds : how many of the instances the archive has in the end
    status : the C-STORE status that stays visible
    """

    archive: Archive
    proof: str
    ends: dict[tuple[str, str | None], int]
    holds: int
    status: str | None = "0000"
    proving: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 10
    alike: dict[str, str] = field(default_factory=dict)
    """Reason codes that count as another one: who is not answered loses the rest of the association too."""


def other_pixels(dataset: Dataset) -> None:
    if "PixelData" in dataset and dataset.Modality == "PT":
        dataset.PixelData = bytes(reversed(dataset.PixelData))


CASES = {
    "honest": Case(Archive(), "committed", all_of("committed"), ALL),
    "honest-and-found": Case(Archive(), "seen", all_of("seen"), ALL, proving={"verify": "pixels"}),
    "reports-on-a-new-association": Case(Archive(report="new"), "committed", all_of("committed"), ALL),
    "refuses-us": Case(
        Archive(refuses_callers=True), "accepted", all_of("failed", "association-rejected"), 0, status=None
    ),
    "never-answers": Case(
        Archive(silence_s=3, keeps=lambda _: False),
        "accepted",
        all_of("dead", "no-response"),
        0,
        status=None,
        timeout_s=1,
        alike={"association-lost": "no-response"},
    ),
    "aborts-after-three": Case(
        Archive(store=lambda number: None if number == 3 else 0x0000), "committed", all_of("committed"), ALL
    ),
    "warns": Case(Archive(store=lambda _: 0xB000), "committed", all_of("committed"), ALL, status="B000"),
    "is-full": Case(Archive(store=lambda _: 0xA700), "accepted", all_of("dead", "out-of-resources"), 0, status="A700"),
    "is-full-for-a-while": Case(
        Archive(store=lambda number: 0xA700 if number < 5 else 0x0000), "seen", all_of("seen"), ALL
    ),
    "accepts-and-drops": Case(
        Archive(keeps=lambda _: False), "committed", all_of("dead", "no-such-object-instance"), 0
    ),
    "drops-the-first-time": Case(Archive(keeps=lambda number: number >= ALL), "committed", all_of("committed"), ALL),
    "drops-and-offers-no-commitment": Case(
        Archive(keeps=lambda _: False), "seen", all_of("failed", "not-found"), 0, proving={"ask_commitment": False}
    ),
    "commits-falsely": Case(
        Archive(keeps=lambda _: False, says=lambda *_: None), "seen", all_of("failed", "not-found"), 0
    ),
    "keeps-other-pixels": Case(
        Archive(alters=other_pixels),
        "seen",
        {("failed", "content-differs"): SLICES, ("seen", None): RESULTS},
        ALL,
        proving={"verify": "pixels"},
    ),
    "never-reports": Case(Archive(report="never"), "committed", all_of("dead", "no-commitment-report"), ALL),
    "reports-a-failure": Case(
        Archive(says=lambda *_: 0x0213), "committed", all_of("failed", "resource-limitation"), ALL
    ),
    "refuses-the-request": Case(Archive(request_status=0x0110), "committed", all_of("dead", "unable-to-process"), ALL),
    "offers-no-commitment": Case(Archive(services=()), "committed", all_of("failed", "commitment-not-offered"), ALL),
    "offers-no-query": Case(
        Archive(services=()), "seen", all_of("failed", "query-not-offered"), ALL, proving={"ask_commitment": False}
    ),
    "takes-no-segmentation": Case(
        Archive(classes=[PositronEmissionTomographyImageStorage, Comprehensive3DSRStorage]),
        "committed",
        {("committed", None): ALL - 1, ("failed", "context-rejected"): 1},
        ALL - 1,
        status=None,
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The node after everything it could do for one study."""
    folder = tmp_path_factory.mktemp("proof")
    study = make.study(folder / "study", seed=71, pet_shape=(SLICES, 24, 24))
    node_port = free_port()
    with ExitStack() as stack:
        for case in CASES.values():
            case.archive.node_port = node_port
            stack.enter_context(case.archive)
        modalities = {"tracerd": ("TRACERD", "127.0.0.1", node_port)}
        orthanc = stack.enter_context(Orthanc(folder / "orthanc", modalities=modalities))
        node = RunningNode(
            folder / "node",
            orthanc.dicom_port,
            rules=rules_to(["orthanc", *CASES]),
            settings={"destinations": destinations(orthanc), "peers": [scanner_with_report_to(orthanc)]},
            port=node_port,
        )
        stack.enter_context(node)
        Sender(node.port).send(study.pet)
        node.wait_for_jobs(1, {"done"})
        there = World(node, orthanc)
        there.wait_until_proven(ALL * (len(CASES) + 1), timeout=60)
        assert node.rows("select count(*) from delivery")[0][0] == ALL * (len(CASES) + 1)
        yield there


def destinations(orthanc: Orthanc) -> dict[str, Any]:
    common = {"host": "127.0.0.1"}
    found = {
        name: {
            **common,
            "port": case.archive.port,
            "ae_title": "ARCHIVE",
            "proof": case.proof,
            "timeout_s": case.timeout_s,
            "proving": {**PROVING, **case.proving},
            "retry": retry(gives_up=any(state == "dead" for state, _ in case.ends)),
        }
        for name, case in CASES.items()
    }
    patient = {"same_association_s": 0.4, "report_s": 30, "attempts": 6, "verify": "pixels"}
    real = {
        **common,
        "retry": retry(gives_up=False),
        "port": orthanc.dicom_port,
        "ae_title": "ORTHANC",
        "proof": "seen",
        "proving": patient,
    }
    return {**found, "orthanc": real}


def scanner_with_report_to(orthanc: Orthanc) -> dict[str, Any]:
    """Orthanc in the role of a scanner: it asks us whether we keep what it sent."""
    return {
        "name": "orthanc",
        "ae_title": "ORTHANC",
        "addresses": ["127.0.0.1"],
        "report_to": {"host": "127.0.0.1", "port": orthanc.dicom_port},
    }


@pytest.mark.parametrize("name", CASES)
def test_how_it_ends_with_an_archive(world: World, name: str):
    case = CASES[name]
    rows = world.deliveries(name)
    ended = Counter((state, case.alike.get(code or "", code)) for state, code, _ in rows)
    assert ended == case.ends
    assert len(case.archive.held) == case.holds
    if case.status is not None:
        assert {status for _, _, status in rows} == {case.status}


def test_what_is_sent_again_is_one_object_for_the_archive(world: World):
    """Sent again because of what a peer said or did: never under another UID, and never what it had taken."""
    for name, expected in {
        "drops-the-first-time": 2 * ALL,
        "aborts-after-three": ALL + 1,
        "honest": ALL,
    }.items():
        assert len(CASES[name].archive.stored) == expected, name
        assert len(set(CASES[name].archive.stored)) == ALL, name


def test_a_request_is_made_again_under_a_transaction_of_its_own(world: World):
    archive = CASES["never-reports"].archive
    assert len(archive.requests) >= 2
    assert len(set(archive.requests)) == len(archive.requests)
    kept = world.node.rows("select transaction_uid from commitment where peer = 'never-reports'")
    assert {uid for (uid,) in kept} == set(archive.requests)


def test_every_report_was_answered_with_success(world: World):
    for name in ("honest", "reports-on-a-new-association", "commits-falsely", "reports-a-failure"):
        heard = [status for status in CASES[name].archive.answers if status is not None]  # None: it came too late
        assert heard and set(heard) == {0x0000}, name


def test_commitment_rows_say_how_each_request_ended(world: World):
    def states(name: str) -> set[str]:
        return {state for (state,) in world.node.rows("select state from commitment where peer = ?", name)}

    assert states("honest") == states("reports-on-a-new-association") == {"confirmed"}
    assert states("never-reports") == {"timed_out"}
    assert states("accepts-and-drops") == {"refused"}
    assert states("offers-no-commitment") == {"refused"}


def test_a_real_archive_commits_and_is_seen_with_its_pixels(world: World):
    assert Counter(world.deliveries("orthanc")) == {("seen", None, "0000"): ALL}
    assert world.orthanc.count() == ALL
    events = world.node.rows(
        "select distinct e.to_state from event e join delivery d on e.subject_id = d.id "
        "where e.subject_type = 'delivery' and d.destination = 'orthanc'"
    )
    assert {to for (to,) in events} == {"sending", "accepted", "committed", "seen"}


def test_people_see_the_rung_the_warning_and_the_reason(world: World):
    shown = world.node.json("jobs", "show", "1")["deliveries"]
    warned = [row for row in shown if row["destination"] == "warns"]
    assert [(row["warning"], row["proven"]) for row in warned] == [("coerced", True)] * RESULTS
    status = world.node.json("status")
    warning = {"destination": "warns", "status": "B000", "warning": "coerced", "instances": ALL}
    assert warning in status["delivery_warnings"]
    text = world.node.command("jobs", "show", "1").stdout
    assert "B000 coerced" in text
    assert "failed, seen wanted" in text


def test_a_real_archive_asks_us_and_our_own_results_come_back(world: World):
    """Orthanc sends everything it has to us, our own results included, and asks for storage commitment."""
    node, orthanc = world.node, world.orthanc
    before = node.rows("select count(*) from instance")[0][0], len(node.jobs())
    document = {"Resources": orthanc.get("/instances"), "StorageCommitment": True, "Synchronous": True}
    sent = orthanc.post("/modalities/tracerd/store", document)
    transaction = sent["StorageCommitmentTransactionUID"]
    report = wait_until(
        lambda: (
            orthanc.get(f"/storage-commitment/{transaction}")["Status"] != "Pending"
            and orthanc.get(f"/storage-commitment/{transaction}")
        ),
        30,
        every=0.2,
    )
    assert (report["Status"], len(report["Success"])) == ("Success", ALL)
    assert (node.rows("select count(*) from instance")[0][0], len(node.jobs())) == before
    returned = node.rows("select count(distinct subject_id) from event where reason = 'returned'")[0][0]
    assert returned == RESULTS


def test_nothing_of_it_names_a_patient_or_a_uid(world: World):
    log = world.node.log.read_text()
    for uid in (*CASES["honest"].archive.held, *CASES["honest"].archive.requests):
        assert uid not in log
