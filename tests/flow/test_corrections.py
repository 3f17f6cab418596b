"""The same SOP Instance UIDs again: re-encoded, coerced, corrected, with other pixels, broken off (DESIGN §3 Index)."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests import make
from tests.flow.running import RunningNode
from tests.peers import Sender, StoreScp
from tests.processes import wait_until
from tests.proxy import RecordingProxy


@pytest.fixture
def pacs(tmp_path):
    with StoreScp(tmp_path / "pacs") as peer:
        yield peer


@pytest.fixture
def node(tmp_path, pacs):
    with RunningNode(tmp_path / "node", pacs.port) as running:
        yield running


@pytest.fixture
def study(tmp_path, node):
    made = make.study(tmp_path / "study", seed=11, pet_shape=(16, 24, 24))
    Sender(node.port).send(made.pet)
    node.wait_delivered(2)
    return made


def again(study, folder: Path, change) -> list[Path]:
    """The PET's files once more, each changed by `change(dataset)`."""
    folder.mkdir()
    written = []
    for path in study.pet:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(folder / path.name)
        written.append(folder / path.name)
    return written


def settle(node) -> None:
    wait_until(lambda: not list((node.data / "spool" / "inbox").iterdir()), 20)


def instances(node) -> dict[str, int]:
    return dict(node.rows("select state, count(*) from instance where job_id is null group by state"))


def test_a_reencoded_copy_is_a_duplicate(node, study, tmp_path):
    def reencode(dataset):
        implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if implicit else ImplicitVRLittleEndian

    Sender(node.port, options=("-xi",)).send(again(study, tmp_path / "a", reencode))
    settle(node)
    Sender(node.port, options=("-xr",)).send(
        again(study, tmp_path / "b", lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    )
    settle(node)
    assert instances(node) == {"current": 16}
    assert [job["state"] for job in node.jobs()] == ["done"]
    assert node.rows("select count(*) from event where reason = 'coerced'") == [(0,)]


def test_a_coerced_name_keeps_the_first_copy_and_is_noted(node, study, tmp_path):
    def coerce(dataset):
        dataset.PatientName = "OTHER^SPELLING"

    Sender(node.port).send(again(study, tmp_path / "a", coerce))
    settle(node)
    assert instances(node) == {"current": 16}
    events = node.rows("select data from event where reason = 'coerced'")
    assert len(events) == 16
    assert all("PatientName" in data for (data,) in events)
    assert [job["state"] for job in node.jobs()] == ["done"]


def test_an_accepted_weight_reruns_the_job_under_new_uids_and_says_what_it_supersedes(node, study, tmp_path, pacs):
    before = {dataset.Modality: dataset for dataset in map(pydicom.dcmread, pacs.files())}

    def correct(dataset):
        dataset.PatientWeight = float(dataset.PatientWeight) * 1.25

    Sender(node.port).send(again(study, tmp_path / "a", correct))
    settle(node)
    assert instances(node) == {"current": 16, "conflicting": 16}
    (conflict,) = node.json("conflicts", "list")
    assert conflict["differing"] == ["PatientWeight"]
    assert [job["state"] for job in node.jobs()] == ["done"]
    node.command("conflicts", "accept", str(conflict["series"]), "--because", "weight corrected by the physicist")
    node.wait_delivered(4)
    assert instances(node) == {"current": 16, "superseded": 16}
    first, second = node.jobs()
    assert (first["state"], second["state"], second["supersedes"]) == ("superseded", "done", first["id"])
    after = list(map(pydicom.dcmread, pacs.files()))
    assert len(after) == 4, "the corrected results came under their own UIDs"
    report = next(d for d in after if d.Modality == "SR" and d.SOPInstanceUID != before["SR"].SOPInstanceUID)
    predecessors = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessors[0].ReferencedSOPInstanceUID == before["SR"].SOPInstanceUID
    assert "(2)" in report.SeriesDescription
    assert suv_max(report) == pytest.approx(1.25 * suv_max(before["SR"]), rel=1e-3)


def suv_max(report) -> float:
    """The largest number with the code (126401, DCM) SUVbw in the content tree."""
    found = []

    def walk(items):
        for item in items:
            name = item.get("ConceptNameCodeSequence", [None])[0]
            if item.ValueType == "NUM" and name.CodeValue == "126401":
                found.append(float(item.MeasuredValueSequence[0].NumericValue))
            walk(item.get("ContentSequence", []))

    walk(report.ContentSequence)
    return max(found)


def test_a_discarded_correction_changes_nothing(node, study, tmp_path):
    def correct(dataset):
        dataset.PatientWeight = 33

    Sender(node.port).send(again(study, tmp_path / "a", correct))
    settle(node)
    (conflict,) = node.json("conflicts", "list")
    node.command("conflicts", "discard", str(conflict["series"]), "--because", "sent by mistake")
    assert instances(node) == {"current": 16, "superseded": 16}
    assert node.json("conflicts", "list") == []
    assert [job["state"] for job in node.jobs()] == ["done"]


def test_changed_pixels_conflict_and_nothing_is_overwritten(node, study, tmp_path):
    stored = {path: path.read_bytes() for path in (node.data / "store").rglob("*.dcm")}

    def alter(dataset):
        pixels = np.frombuffer(dataset.PixelData, np.uint16).copy()
        pixels[0] += 1
        dataset.PixelData = pixels.tobytes()

    Sender(node.port).send(again(study, tmp_path / "a", alter)[:1])
    settle(node)
    assert instances(node) == {"current": 16, "conflicting": 1}
    assert {path: path.read_bytes() for path in stored} == stored
    assert node.json("conflicts", "list")[0]["differing"] == ["PixelData"]


def test_a_resend_that_breaks_off_leaves_the_first_copy_alone(node, study, tmp_path):
    stored = {path: path.read_bytes() for path in (node.data / "store").rglob("*.dcm")}
    with RecordingProxy(("127.0.0.1", node.port)) as proxy:
        proxy.cut_after(1, "data set")
        assert Sender(proxy.port).send(study.pet[:1]).acknowledged == []
    wait_until(lambda: not list((node.data / "spool" / "tmp").iterdir()), 20)
    settle(node)
    assert instances(node) == {"current": 16}
    assert {path: path.read_bytes() for path in stored} == stored
