"""A simulated FDG PET/CT through the whole node with the learned engine, and what is written of its weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from engines.registry import engine
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp

ROOT = Path(__file__).resolve().parents[2]
SEED = 100_139  # of fdg-train: with lesions, not among the patients the shipped weights learned from
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


def test_a_study_without_its_ct_is_held_and_says_so(study: Path, tmp_path: Path) -> None:
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, rules=[RULE]) as node:
        Sender(node.port).send(sorted(study.glob("PT*.dcm")))
        (job,) = node.wait_for_jobs(1, {"held"}, timeout=60)
        assert "no ct that pairs with pet arrived" in job["reason"]
        assert not pacs.files()
