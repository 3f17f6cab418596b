"""`tracerd simulate` as a person runs it, at the resolution people get: files, truth, and the way to a PACS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests import peers

ROOT = Path(__file__).resolve().parents[2]
SEED = 3


def tracerd(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.fixture(scope="module")
def fdg(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the study, its truth in a folder below it, and what the command said."""
    folder = tmp_path_factory.mktemp("fdg") / "a study"
    done = tracerd("simulate", "fdg", "--out", folder, "--seed", SEED, "--truth", folder / "truth")
    return folder, done.stdout


def image(folder: Path, name: str) -> Any:
    return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj)


def test_the_command_says_what_it_wrote_and_what_to_do_next(fdg: tuple[Path, str]) -> None:
    folder, said = fdg
    counts = {modality: len(list(folder.glob(f"{modality}-*.dcm"))) for modality in ("CT", "PT")}
    assert f"seed {SEED}, small: {counts['CT']} CT and {counts['PT']} PT instances" in said
    assert counts["CT"] == counts["PT"] > 150
    assert f"storescu -aec TRACERD --scan-directories HOST 11112 '{folder}'" in said
    assert f"tracerd inspect '{folder}'" in said
    for path in folder.rglob("*"):
        assert "SIM" not in path.name.upper(), "no patient in the name of a file"


def test_the_way_that_it_names_ends_in_a_pacs(fdg: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = fdg
    with peers.StoreScp(tmp_path) as pacs:
        sent = [peers.program("storescu"), "-aec", "STORESCP", "--scan-directories", "127.0.0.1", str(pacs.port)]
        done = subprocess.run([*sent, str(folder)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        received = pacs.received()
    assert len(received) == len(list(folder.glob("*.dcm")))


def test_inspect_reads_it_without_a_doubt(fdg: tuple[Path, str]) -> None:
    series = json.loads(tracerd("inspect", fdg[0], "--json").stdout)["series"]
    (pet,) = (one for one in series if one["modality"] == "PT")
    assert (pet["tracer"], pet["kind"], pet["attenuation_corrected"], pet["complete"]) == ("FDG", "static", True, True)
    assert pet["problems"] == []
    assert pet["suv"]["status"] == "ok"
    assert 3.0 < pet["suv"]["max"] < 80.0
    assert pet["spacing_mm"] == pytest.approx([5.0, 5.5, 5.5], abs=1e-3)


def test_organs_take_up_what_patients_organs_do(fdg: tuple[Path, str]) -> None:
    """SUVmean of the liver 1.5 to 3 and of the lung about 0.5 (EANM 2015; Paquet 2004, J Nucl Med 45:1155)."""
    truth = fdg[0] / "truth"
    known = json.loads((truth / "truth.json").read_text())
    numbers = {name: int(number) for number, name in known["names"]["labels"].items()}
    labels, suv = image(truth, "labels"), image(truth, "reference")
    assert 1.3 < suv[labels == numbers["liver"]].mean() < 3.2
    assert 0.2 < suv[labels == numbers["lung"]].mean() < 0.9
    assert suv[labels == numbers["grey matter"]].mean() > 2.0 * suv[labels == numbers["liver"]].mean()
    assert suv[labels == 0].mean() < 0.05


def test_a_second_run_into_the_folder_is_refused_at_once_and_changes_nothing(fdg: tuple[Path, str]) -> None:
    folder, _ = fdg
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for arguments in (("fdg", SEED), ("fdg", SEED + 1), ("rb82-rest", SEED)):
        done = tracerd("simulate", arguments[0], "--out", folder, "--seed", arguments[1], check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert str(folder) in done.stderr
        assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    "wrong", [("fgd",), ("fdg", "--preset", "tiny"), ("fdg", "--share", "0.5"), ("fdg", "--seed", "-1")]
)
def test_wrong_usage_is_told_as_such(wrong: tuple[str, ...], tmp_path: Path) -> None:
    done = tracerd("simulate", *wrong, "--out", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_rubidium_goes_through_the_heart_as_its_truth_says(tmp_path: Path) -> None:
    """Voxels that are wholly left ventricle follow the curve of the blood; supplied myocardium ends brighter."""
    out, truth = tmp_path / "out", tmp_path / "truth"
    command = ("simulate", "rb82-rest", "--out", out, "--seed", SEED, "--truth", truth, "--json")
    document = json.loads(tracerd(*command).stdout)
    assert document["instances"] == {"CT": 44, "PT": 27 * 44}
    known, labels, frames = (
        json.loads((truth / "truth.json").read_text()),
        image(truth, "labels"),
        image(truth, "reference"),
    )
    numbers = {name: int(number) for number, name in known["names"]["labels"].items()}
    cavity = labels == numbers["left ventricle"]
    deep = cavity.copy()
    for axis in range(3):  # two voxels from every wall
        for shift in (-2, -1, 1, 2):
            deep &= np.roll(cavity, shift, axis)
    assert deep.sum() >= 5
    blood, rate = np.array(known["curves"]["left_ventricle_bqml"]), np.log(2.0) / known["half_life_s"]
    seconds = np.arange(len(blood))
    spans = list(zip(known["frame_start_s"], known["frame_duration_s"], strict=True))
    inside = [(seconds >= start) & (seconds < start + lasts) for start, lasts in spans]
    told = np.array([np.average(blood[which], weights=np.exp(-rate * seconds[which])) for which in inside])
    seen = frames[deep].mean(axis=0)
    early = told > 0.3 * told.max()  # later what spills over from the wall is no longer small
    assert early.sum() >= 4
    assert seen[early] == pytest.approx(told[early], rel=0.15)
    late = frames[..., -3:].mean(axis=-1)
    segments = image(truth, "segments")
    best = max(known["segments"].items(), key=lambda item: item[1]["mbf"] or 0.0)[0]
    assert late[segments == int(best)].mean() > 1.5 * late[deep].mean()
