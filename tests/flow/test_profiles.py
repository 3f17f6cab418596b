"""What each destination gets of one result: its objects, its encoding, what is sent instead, and why there is none."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    LabelMapSegmentationStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from tests import make
from tests.flow.liars import Archive
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp
from tests.processes import wait_until

EVERY_CLASS = (
    PositronEmissionTomographyImageStorage,
    SegmentationStorage,
    LabelMapSegmentationStorage,
    Comprehensive3DSRStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)


@dataclass
class Case:
    """A destination: what the site says of it, what the archive takes, and the kinds it holds in the end."""

    more: dict[str, Any]
    holds: set[str]
    archive: Archive = field(default_factory=lambda: Archive(classes=EVERY_CLASS))
    ends: dict[tuple[str, str | None], int] | None = None


def without(*classes: str, **more: Any) -> Archive:
    return Archive(classes=[one for one in EVERY_CLASS if one not in classes], **more)


def no_segmentation(_: bool, uid: str) -> int | None:
    return 0x0122 if FORGETFUL.held[uid].SOPClassUID == SegmentationStorage else None


FORGETFUL = Archive(classes=EVERY_CLASS, says=no_segmentation)
CASES = {
    "usual": Case({}, {"seg", "sr"}),
    "report-only": Case({"objects": ["sr"]}, {"seg", "sr"}),
    "label-map": Case({"objects": ["labelmap", "sr"]}, {"labelmap", "sr"}),
    "planning": Case({"objects": ["rtstruct"]}, {"rtstruct"}),
    "ward": Case({"objects": ["capture"]}, {"capture"}),
    "contours-instead": Case(
        {"fall_back": {"seg": "rtstruct"}},
        {"rtstruct", "sr"},
        without(SegmentationStorage),
        {("accepted", None): 2, ("withdrawn", "context-rejected"): 1},
    ),
    "page-in-the-end": Case(
        {"fall_back": {"seg": "rtstruct", "rtstruct": "capture"}},
        {"capture", "sr"},
        without(SegmentationStorage, RTStructureSetStorage),
        {("accepted", None): 2, ("withdrawn", "context-rejected"): 2},
    ),
    "nothing-else": Case(
        {"objects": ["seg"], "fall_back": {"seg": "rtstruct"}},
        set(),
        without(SegmentationStorage, RTStructureSetStorage),
        {("withdrawn", "context-rejected"): 1, ("failed", "context-rejected"): 1},
    ),
    "small-objects-only": Case(
        {"objects": ["seg"], "object_bytes_max": 3000, "fall_back": {"seg": "sr"}},
        set(),
        ends={("withdrawn", "too-large"): 1, ("failed", "too-large"): 1},
    ),
    "keeps-no-segmentation": Case(
        {"objects": ["seg"], "proof": "committed", "fall_back": {"seg": "rtstruct"}},
        {"seg", "rtstruct"},
        FORGETFUL,
        {("withdrawn", "referenced-sop-class-not-supported"): 1, ("committed", None): 1},
    ),
    "told-why": Case({"report_not_processed": True, "objects": ["capture"]}, {"capture", "not-processed"}),
}


@dataclass
class World:
    node: RunningNode
    implicit: StoreScp
    deflated: StoreScp
    study: make.Study

    def result(self, kind: str) -> Dataset:
        """The object of a kind as the node keeps it."""
        names = {"labelmap": "labelmap.dcm", "sr": "sr.dcm", "sr_labelmap": "sr_labelmap.dcm", "seg": "seg.dcm"}
        (path,) = self.node.rows(
            "select path from instance where job_id = 1 and path like ?", f"%/{names.get(kind, kind + '.dcm')}"
        )
        return pydicom.dcmread(self.node.data / path[0])


def encoded(dataset: Dataset) -> bytes:
    """The data set without its VRs, of which Implicit VR knows nothing: bits in OB come back as OW."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def kind_of(dataset: Dataset) -> str:
    if dataset.Modality == "SR" and "Not processed" in dataset.SeriesDescription:
        return "not-processed"
    if dataset.SOPClassUID == LabelMapSegmentationStorage:
        return "labelmap"
    return {"SEG": "seg", "SR": "sr", "RTSTRUCT": "rtstruct"}.get(dataset.Modality, "capture")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("profiles")
    well = make.study(folder / "well", seed=81, pet_shape=(6, 24, 24))
    weightless = make.study(folder / "weightless", seed=82, pet_shape=(6, 24, 24), omit=["PatientWeight"])
    with ExitStack() as stack:
        implicit = stack.enter_context(StoreScp(folder / "implicit", options=["+xi"]))
        deflated = stack.enter_context(StoreScp(folder / "deflated", options=["+xd"]))
        for case in CASES.values():
            stack.enter_context(case.archive)
        ports = {name: case.archive.port for name, case in CASES.items()}
        ports |= {"implicit": implicit.port, "deflated": deflated.port}
        more = {name: case.more for name, case in CASES.items()}
        more |= {"implicit": {}, "deflated": {"transfer_syntaxes": ["deflated", "explicit"]}}
        destinations = {
            name: {
                "host": "127.0.0.1",
                "port": port,
                "ae_title": "ARCHIVE",
                "timeout_s": 20,
                "proving": {"same_association_s": 5, "report_s": 30},
                "retry": {"first_s": 0.2, "max_s": 1, "give_up_after_s": 600},
                **more[name],
            }
            for name, port in ports.items()
        }
        rule = {**FDG_RULE, "send_to": list(ports)}
        node = RunningNode(folder / "node", 0, rules=[rule], settings={"destinations": destinations})
        stack.enter_context(node)
        there = World(node, implicit, deflated, well)
        Sender(node.port).send(well.pet)
        node.wait_for_jobs(1, {"done"})
        Sender(node.port).send(weightless.pet)
        node.wait_for_jobs(2, {"done", "rejected"})
        unsettled = "state in ('queued', 'sending') or (state = 'accepted' and proof != 'accepted')"
        query = f"select count(*) from delivery where {unsettled}"
        try:
            wait_until(lambda: node.rows(query)[0][0] == 0, 60, every=0.2)
        except TimeoutError:
            rows = node.rows("select destination, state, reason_code, count(*) from delivery group by 1, 2, 3")
            raise AssertionError(f"{rows}\n{node.log.read_text()[-3000:]}") from None
        yield there


@pytest.mark.parametrize("name", CASES)
def test_what_a_destination_gets(world: World, name: str):
    case = CASES[name]
    held = list(case.archive.held.values())
    assert Counter(kind_of(one) for one in held) == Counter(case.holds)
    if case.ends is not None:
        rows = world.node.rows("select state, reason_code from delivery where destination = ?", name)
        assert Counter(rows) == case.ends


def test_a_report_refers_to_the_form_that_was_sent(world: World):
    def referenced(report: Dataset) -> set[str]:
        return {
            str(item.ReferencedSOPInstanceUID)
            for part in report.CurrentRequestedProcedureEvidenceSequence
            for series in part.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }

    for name, form in (("usual", "seg"), ("label-map", "labelmap")):
        kept = {kind_of(one): one for one in CASES[name].archive.held.values()}
        assert str(kept[form].SOPInstanceUID) in referenced(kept["sr"])
    usual = {kind_of(one): one for one in CASES["usual"].archive.held.values()}
    mapped = {kind_of(one): one for one in CASES["label-map"].archive.held.values()}
    assert usual["sr"].SOPInstanceUID != mapped["sr"].SOPInstanceUID
    assert usual["sr"].SeriesInstanceUID != mapped["sr"].SeriesInstanceUID


@pytest.mark.parametrize(
    ("name", "syntax"), [("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)]
)
def test_an_archive_that_takes_another_encoding_gets_the_same_object(world: World, name: str, syntax: str):
    received = [pydicom.dcmread(path) for path in getattr(world, name).files()]
    assert Counter(kind_of(one) for one in received) == {"seg": 1, "sr": 1}
    for one in received:
        assert one.file_meta.TransferSyntaxUID == syntax
        kept = world.result(kind_of(one))
        assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert encoded(kept) == encoded(one)


def test_the_refusal_report_says_why_and_goes_only_where_it_is_wanted(world: World):
    reports = [one for one in CASES["told-why"].archive.held.values() if kind_of(one) == "not-processed"]
    (report,) = reports
    said = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
    assert any(text.startswith("Not processed: ") and "eight" in text for text in said), said
    assert any(text.startswith("Reason code: no-weight") for text in said), said
    job = world.node.jobs()[1]
    assert (job["state"], job["reason_code"]) == ("rejected", "no-weight")
    rows = world.node.rows("select destination, state from delivery where job_id = 2")
    assert rows == [("told-why", "accepted")]


def test_a_refused_job_has_one_attempt_and_its_report_is_stored(world: World):
    shown = world.node.json("jobs", "show", "2")
    assert [one["outcome"] for one in shown["tries"]] == ["error"]
    assert [one["modality"] for one in shown["outputs"]] == ["SR"]


def test_what_was_withdrawn_can_be_sent_after_all(world: World):
    """The archive was taught Segmentations: a person sends them again."""
    archive = CASES["nothing-else"].archive
    assert not archive.held
    archive.accept(SegmentationStorage)
    world.node.command("jobs", "resend", "1", "--to", "nothing-else")
    wait_until(lambda: [kind_of(one) for one in archive.held.values()] == ["seg"], 30, every=0.2)


def test_every_kind_is_written_once(world: World):
    rows = world.node.rows("select path from instance where job_id = 1 order by path")
    assert [Path(path).name for (path,) in rows] == [
        "capture.dcm",
        "labelmap.dcm",
        "rtstruct.dcm",
        "seg.dcm",
        "sr.dcm",
        "sr_labelmap.dcm",
    ]


def test_an_archive_that_takes_no_compression_gets_the_same_pixels(world: World):
    kept = world.result("labelmap")
    came = next(one for one in CASES["label-map"].archive.held.values() if kind_of(one) == "labelmap")
    assert kept.file_meta.TransferSyntaxUID.is_encapsulated
    assert came.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert came.SOPInstanceUID == kept.SOPInstanceUID
    assert kept.pixel_array.any() and (came.pixel_array == kept.pixel_array).all()
