"""FDG PET/CT, simulated and real, through the whole node with the learned engine; what is written of its weights."""

import subprocess
import sys
from datetime import UTC
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_io.volume import load
from engines.contract import Quantity
from engines.registry import engine
from tests.flow import sarcoma
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Orthanc, Sender, StoreScp, unpack_sarcoma

ROOT = Path(__file__).resolve().parents[2]
SEED = 110_003  # of fdg-tune, with nine lesions
REAL = ("STS_001", "STS_006")
RULE = {
    "name": "fdg",
    "engine": "fdg_segmentation",
    "when": {"tracer": "FDG"},
    "inputs": {**FDG_RULE["inputs"], "ct": {"modality": "CT", "pairs_with": "pet"}},
    "send_to": ["pacs"],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "study"
    command = [sys.executable, "-m", "daemon", "simulate", "fdg", "--seed", str(SEED), "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)
    return folder


def test_pet_and_ct_go_in_and_seg_and_sr_come_out(study: Path, tmp_path: Path) -> None:
    files = sorted(study.glob("*.dcm"))
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, rules=[RULE]) as node:
        assert Sender(node.port).send(files).unacknowledged == []
        node.wait_delivered(2, timeout=400)
        received = {dataset.Modality: dataset for dataset in map(pydicom.dcmread, pacs.files())}
        assert sorted(received) == ["SEG", "SR"]
        assert node.stop() == 0
    weights = engine("fdg_segmentation").weights_sha256
    assert weights is not None
    seg = received["SEG"]
    item = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert item.AlgorithmName == "fdg_segmentation"
    assert f"weights_sha256={weights}" in item.AlgorithmParameters
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in files if path.name.startswith("PT")]
    assert (seg.Rows, seg.Columns) == (slices[0].Rows, slices[0].Columns)
    assert seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert np.asarray(seg.pixel_array).any()


def test_simulated_and_real_studies_lie_as_seg_and_sr_in_orthanc(study: Path, tmp_path: Path) -> None:
    """By the rule `tracer: FDG`; every SEG holds the voxels that the engine finds in the same files."""
    sent = {"simulated": sorted(study.glob("*.dcm"))}
    sent |= {name: sorted((unpack_sarcoma(name)).glob("*/image/*.dcm")) for name in REAL}
    with Orthanc(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.dicom_port, rules=[RULE]) as node:
        for files in sent.values():
            assert Sender(node.port).send(files).unacknowledged == []
        node.wait_delivered(2 * len(sent), timeout=400)
        stored = pacs.save_all(tmp_path / "stored")
    for files in sent.values():
        _check_results(files, stored)


def _check_results(files: list[Path], stored: list[Path]) -> None:
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in files}
    (study_uid,) = {header.StudyInstanceUID for header in headers.values()}
    results = [(pydicom.dcmread(path), path) for path in stored]
    by_modality = {one.Modality: path for one, path in results if one.StudyInstanceUID == study_uid}
    assert sorted(by_modality) == ["SEG", "SR"]
    paths = {name: [path for path, one in headers.items() if one.Modality == name] for name in ("PT", "CT")}
    volumes = {
        "pet": load(paths["PT"], Quantity.SUVBW, UTC).volume,
        "ct": load(paths["CT"], Quantity.HU, UTC).volume,
    }
    tool = engine("fdg_segmentation")
    found = tool(volumes, tool.defaults, lambda: False).label_map
    assert found is not None
    assert found.array.any()
    segmented = sarcoma.mask_by_highdicom(by_modality["SEG"], sarcoma.truth(paths["PT"]))
    np.testing.assert_array_equal(segmented, found.array > 0)


def test_a_rule_may_let_the_engine_go_without_a_ct(study: Path, tmp_path: Path) -> None:
    inputs = {**RULE["inputs"], "ct": {**RULE["inputs"]["ct"], "optional": True}}
    rule = {**RULE, "inputs": inputs, "parameters": {"without_ct": "pet-only"}}
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, rules=[rule]) as node:
        Sender(node.port).send(sorted(study.glob("PT*.dcm")))
        node.wait_delivered(2, timeout=400)
        (report,) = [dataset for dataset in map(pydicom.dcmread, pacs.files()) if dataset.Modality == "SR"]
        assert "Segmented by PET alone" in report.to_json()


def test_a_study_without_its_ct_is_held_and_says_so(study: Path, tmp_path: Path) -> None:
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, rules=[RULE]) as node:
        Sender(node.port).send(sorted(study.glob("PT*.dcm")))
        (job,) = node.wait_for_jobs(1, {"held"}, timeout=60)
        assert "no ct that pairs with pet arrived" in job["reason"]
        assert not pacs.files()
