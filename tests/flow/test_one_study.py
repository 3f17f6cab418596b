"""One study through the whole node: what arrives, what leaves, and what is refused with a reason."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests import make
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp


@pytest.fixture
def pacs(tmp_path):
    with StoreScp(tmp_path / "pacs") as peer:
        yield peer


def test_pet_goes_in_seg_and_sr_come_out(tmp_path: Path, pacs: StoreScp):
    study = make.study(tmp_path / "study", seed=3, pet_shape=(40, 48, 48), ct_shape=(40, 64, 64))
    with RunningNode(tmp_path / "node", pacs.port) as node:
        sent = Sender(node.port, shuffle_seed=1).send(study.files)
        assert len(sent.acknowledged) == len(study.files)
        node.wait_delivered(2)
        received = [pydicom.dcmread(path) for path in pacs.files()]
        assert sorted(dataset.Modality for dataset in received) == ["SEG", "SR"]
        assert {dataset.StudyInstanceUID for dataset in received} == {study.study_uid}
        assert node.stop() == 0
    text = node.log.read_text()
    assert "SIM0003" not in text, "a Patient ID is in the log"
    assert "SIMULATED" not in text
    assert study.study_uid not in text


def test_the_seg_is_the_mask_a_reader_computes(tmp_path: Path, pacs: StoreScp):
    study = make.study(tmp_path / "study", seed=4, pet_shape=(40, 48, 48), flip="x")
    with RunningNode(tmp_path / "node", pacs.port) as node:
        Sender(node.port).send(study.files)
        node.wait_delivered(2)
    seg = next(pydicom.dcmread(path) for path in pacs.files() if pydicom.dcmread(path).Modality == "SEG")
    found = np.zeros(study.suv.shape, bool)
    positions = {}
    for index, path in enumerate(study.pet):
        positions[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID] = index
    for frame, groups in zip(np.atleast_3d(seg.pixel_array), seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[positions[source]] |= frame.astype(bool)
    tolerance = study.suv.max(axis=(1, 2), keepdims=True) / 65534 * 1.01
    certain = np.abs(study.suv - 4.0) > tolerance
    components_too_small_to_count = found != (study.suv >= 4.0)
    assert not np.any(found & (study.suv < 4.0) & certain)
    assert np.count_nonzero(components_too_small_to_count & certain) <= 0.02 * np.count_nonzero(study.suv >= 4.0)


REFUSALS = [
    pytest.param({"omit": ["PatientWeight"]}, "rejected", "no-weight", id="no weight"),
    pytest.param({"change": {"Units": "CNTS"}}, "rejected", "no-philips-factor", id="counts without a factor"),
    pytest.param({"tilt_deg": 12.0}, "rejected", "gantry-tilt", id="gantry tilt"),
    pytest.param({"missing": [7, 8]}, "held", "unknown", id="missing slices"),
]


@pytest.mark.parametrize(("faults", "state", "code"), REFUSALS)
def test_what_cannot_be_processed_gets_a_reason_and_no_result(tmp_path: Path, pacs: StoreScp, faults, state, code):
    study = make.study(tmp_path / "study", seed=5, pet_shape=(20, 24, 24), **faults)
    with RunningNode(tmp_path / "node", pacs.port) as node:
        Sender(node.port).send(study.files)
        (job,) = node.wait_for_jobs(1, {state}, timeout=40)
        assert job["reason_code"] == code
        assert job["attempts"] <= 1, "a retry storm"
        shown = node.command("jobs", "show", str(job["id"])).stdout
        assert job["reason"].split(".")[0][:30] in " ".join(shown.split())
        assert node.rows("select count(*) from delivery") == [(0,)]
    assert pacs.files() == []


def test_a_rule_that_asks_for_a_ct_waits_for_it_and_then_says_so(tmp_path: Path, pacs: StoreScp):
    rule = {**FDG_RULE, "inputs": {**FDG_RULE["inputs"], "ct": {"modality": "CT", "pairs_with": "pet"}}}
    study = make.study(tmp_path / "study", seed=6, pet_shape=(20, 24, 24), ct_shape=(20, 32, 32))
    with RunningNode(tmp_path / "node", pacs.port, rules=[rule]) as node:
        Sender(node.port).send(study.pet)
        (job,) = node.wait_for_jobs(1, {"held"}, timeout=30)
        assert "no ct that pairs with pet arrived" in job["reason"]
        Sender(node.port).send(study.ct)
        node.wait_delivered(2)
        states = [job["state"] for job in node.jobs()]
        assert states == ["cancelled", "done"]


def test_a_held_job_runs_when_a_person_says_why(tmp_path: Path, pacs: StoreScp):
    rule = {**FDG_RULE, "when": {"body_part": "WHOLEBODY"}}
    study = make.study(tmp_path / "study", seed=7, pet_shape=(20, 24, 24), omit=["BodyPartExamined"])
    with RunningNode(tmp_path / "node", pacs.port, rules=[rule]) as node:
        Sender(node.port).send(study.pet)
        (job,) = node.wait_for_jobs(1, {"held"}, timeout=30)
        refused = node.command("jobs", "release", str(job["id"]), "--because", "", check=False)
        assert refused.returncode in {1, 2}
        node.command("jobs", "release", str(job["id"]), "--because", "whole body, read on the scanner's console")
        node.wait_delivered(2)
        history = node.json("jobs", "show", str(job["id"]))["history"]
        assert any("scanner's console" in event["reason"] for event in history)


def test_unreadable_objects_are_quarantined_and_the_node_lives(tmp_path: Path, pacs: StoreScp):
    study = make.study(tmp_path / "study", seed=8, pet_shape=(20, 24, 24))
    broken = tmp_path / "broken.dcm"
    dataset = pydicom.dcmread(study.pet[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.2.1143.7"
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(broken)
    with RunningNode(tmp_path / "node", pacs.port) as node:
        assert Sender(node.port).send([broken, *study.files]).unacknowledged == []
        node.wait_delivered(2)
        ((code, path),) = node.rows("select code, path from quarantine")
        assert code == "pixel-length"
        assert (node.data / path).exists()
        assert node.json("status")["quarantined"][0]["objects"] == 1


def test_the_listener_receives_while_the_node_is_away(tmp_path: Path, pacs: StoreScp):
    study = make.study(tmp_path / "study", seed=9, pet_shape=(20, 24, 24))
    listener = RunningNode(tmp_path / "node", pacs.port, only="listener")
    node = RunningNode(tmp_path / "node", pacs.port, only="node", port=listener.port)
    with listener:
        assert Sender(listener.port).send(study.files).unacknowledged == []
        for _ in range(2):  # an upgrade in between loses nothing and repeats nothing
            with node:
                node.wait_delivered(2)
                assert node.stop() == 0
        assert listener.stop() == 0
    assert len(pacs.files()) == 2
