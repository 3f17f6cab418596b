"""Whole simulated examinations: what their DICOM says when others read it, and whether the truth that comes along fits.

The scanner of most tests is a coarse one of its own, with voxels of 14 mm: a body takes seconds.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from daemon import cli, nifti
from daemon.commands import CannotDo
from daemon.simulate import (
    Wanted,
    check_out,
    check_truth,
    examination_of,
    uids_of,
    write_dicom,
    write_truth,
)
from dicom_io.errors import QuantityRefused
from dicom_io.inspect import inspect
from dicom_io.volume import load
from dicom_io.write.makers import MakerName
from engines.contract import Quantity
from engines.simulation.compartments import schedule
from engines.simulation.measurement import Scanner
from engines.simulation.projector import Geometry
from engines.simulation.reconstruction import Method
from engines.simulation.study import KINDS, REFERENCE, SHARES, SITES, STATES, Site, Study, simulate
from tests import peers

ROOT = Path(__file__).resolve().parents[2]
SEED, SHARE = 1, 0.25
GEOMETRY = Geometry(pixels=40, pixel_mm=14.0, bins=52, bin_mm=10.7, angles=24, subsets=4)
COARSE = Site(
    scanner=Scanner(GEOMETRY, slice_mm=12.0, bed_slices=20, overlap_slices=8),
    method=Method(iterations=5, filter_fwhm_mm=8.0),
    rb82_method=Method(iterations=3, filter_fwhm_mm=8.0),
)
FRAMES = schedule(((6, 10), (2, 30), (2, 90)))
RUBIDIUM = ("rb82-rest", "rb82-stress")
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def run(kind: Any, seed: int, share: float | None) -> tuple[Study, list[tuple[str, float]]]:
    told: list[tuple[str, float]] = []
    made = simulate(
        kind, seed, COARSE, share=share, frames=FRAMES, progress=lambda what, done: told.append((what, done))
    )
    return made, told


@cache
def once(kind: str, seed: int) -> tuple[Study, list[tuple[str, float]]]:
    return run(kind, seed, SHARE if kind == "lowcount" else None)


def study(kind: str, seed: int = SEED) -> Study:
    return once(kind, seed)[0]


def wanted(kind: Any, seed: int = SEED, maker: Any = "siemens") -> Wanted:
    share = SHARE if kind == "lowcount" else None
    return Wanted(kind=kind, seed=seed, preset="small", out=Path(), share=share, maker=maker)


def write(made: Study, folder: Path, maker: Any = "siemens") -> Path:
    """folder/*.dcm and folder/truth; rest and stress may share one, the truth of stress then lies in truth-2."""
    dicom = write_dicom(made, folder, wanted(made.kind, made.acquisition.seed, maker).new_uid, maker)
    truth = folder / ("truth" if not (folder / "truth").exists() else "truth-2")
    write_truth(made, truth, uids_of(dicom))
    return folder


@cache
def written(kind: str, seed: int) -> Path:
    return write(study(kind, seed), peers.session_folder() / f"simulated-{kind}-{seed}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files(kind: str, modality: str = "PT", seed: int = SEED) -> list[Path]:
    return sorted(written(kind, seed).glob(f"*{modality}-*.dcm"))


def truth(kind: str, name: str, seed: int = SEED) -> Any:
    return nibabel.load(written(kind, seed) / "truth" / f"{name}.nii.gz")


def facts(kind: str, seed: int = SEED) -> dict[str, Any]:
    return json.loads((written(kind, seed) / "truth" / "truth.json").read_text())


def by_pydicom(paths: list[Path]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Bq/mL (z, y, x), (z, y, x, 1) → LPS mm, and SUVbw per Bq/mL: nothing of ours, PS3.3 C.8.9.1.1.5 by hand."""
    slices = sorted((pydicom.dcmread(p) for p in paths), key=lambda d: float(d.ImagePositionPatient[2]))
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
    first, last = slices[0], slices[-1]
    low, high = (np.array(d.ImagePositionPatient, float) for d in (first, last))
    cosines, (row_mm, column_mm) = np.array(first.ImageOrientationPatient, float), map(float, first.PixelSpacing)
    steps = [(high - low) / (len(slices) - 1), cosines[3:] * row_mm, cosines[:3] * column_mm]
    affine = np.vstack([np.column_stack([*steps, low]), [0.0, 0.0, 0.0, 1.0]])
    given = first.RadiopharmaceuticalInformationSequence[0]
    began = datetime.strptime(first.SeriesDate + first.SeriesTime, "%Y%m%d%H%M%S.%f")
    injected = datetime.strptime(given.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S.%f")
    half_lives = (began - injected).total_seconds() / float(given.RadionuclideHalfLife)
    left_bq = float(given.RadionuclideTotalDose) * 2.0**-half_lives
    return values, affine, float(first.PatientWeight) * 1000.0 / left_bq


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fdg", "rb82-stress"])
def test_the_same_seed_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    again = contents(write(run(kind, SEED, None)[0], tmp_path))
    assert again == contents(written(kind, SEED))
    assert len(again) > 100


def test_another_seed_is_another_patient_in_another_study(tmp_path: Path) -> None:
    other = contents(write(study("fdg", SEED + 1), tmp_path))
    one = contents(written("fdg", SEED))
    common = [name for name in one if name.endswith(".dcm") and name in other]
    assert len(common) > 100
    assert not any(one[name] == other[name] for name in common)
    headers = [pydicom.dcmread(folder / "PT-0001.dcm") for folder in (written("fdg", SEED), tmp_path)]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert headers[0][keyword].value != headers[1][keyword].value
    assert [d.StudyDescription for d in headers] == [f"PET/CT whole body simulated seed {SEED + n}" for n in (0, 1)]
    assert {str(d.PatientName).partition("^")[0] for d in headers} == {"SIMULATED"}


def test_no_uid_stands_for_two_contents() -> None:
    roots = [wanted("fdg"), wanted("fdg", 6), wanted("fdg", maker="ge"), wanted("nac"), wanted("lowcount")]
    roots.append(Wanted(kind="fdg", seed=SEED, preset="standard", out=Path()))
    roots.append(Wanted(kind="lowcount", seed=SEED, preset="small", out=Path(), share=0.5))
    assert len({each.new_uid("study", 0) for each in roots}) == len(roots)


@pytest.mark.parametrize("kind", ["lowcount", "nac"])
def test_low_counts_and_missing_corrections_are_of_the_fdg_patient_of_that_seed(kind: str) -> None:
    one, other = study("fdg"), study(kind)
    for field in ("weight_kg", "height_m", "sex", "dose_bq", "uptake_s", "tracer"):
        assert getattr(one.acquisition, field) == getattr(other.acquisition, field), field
    assert np.array_equal(one.organs.array, other.organs.array)
    assert np.array_equal(one.lesions.array, other.lesions.array)
    assert np.array_equal(other.reference.array, one.acquisition.pet.array), "the reference is that fdg examination"
    assert not np.array_equal(other.acquisition.pet.array, one.acquisition.pet.array)
    patients = {(d.PatientID, d.PatientWeight, d.PatientBirthDate) for d in map(first_header, ("fdg", kind))}
    assert len(patients) == 1


def first_header(kind: str) -> pydicom.Dataset:
    return pydicom.dcmread(files(kind)[0])


def test_a_thinned_examination_has_the_mean_of_the_full_one() -> None:
    full, thinned = study("fdg").acquisition.pet.array, study("lowcount").acquisition.pet.array
    assert thinned.mean(dtype=float) == pytest.approx(full.mean(dtype=float), rel=0.01)
    counts = facts("lowcount")["prompts"] / facts("fdg")["prompts"]
    assert counts == pytest.approx(SHARE, rel=1e-3)
    liver = study("fdg").organs.array == label_of("fdg", "liver")
    assert thinned[liver].mean() == pytest.approx(full[liver].mean(), rel=0.03)
    assert 0.0 < (thinned - full)[liver].std() < 0.25 * full[liver].mean()


def label_of(kind: str, organ: str) -> int:
    return next(int(number) for number, name in facts(kind)["names"]["labels"].items() if name == organ)


def test_without_correction_the_body_looks_hollow() -> None:
    inside = np.isin(
        study("nac").organs.array, [label_of("nac", organ) for organ in ("liver", "muscle", "fat", "lung")]
    )
    raw, corrected = study("nac").acquisition.pet.array, study("nac").reference.array
    liver = study("nac").organs.array == label_of("nac", "liver")
    assert raw[inside].mean() < 0.4 * corrected[inside].mean()
    assert raw[liver].mean() / raw[inside].mean() < 0.7 * corrected[liver].mean() / corrected[inside].mean()


def test_rest_and_stress_are_two_scans_of_one_study(tmp_path: Path) -> None:
    rest, stress = study("rb82-rest"), study("rb82-stress")
    assert np.array_equal(rest.organs.array, stress.organs.array)
    assert rest.facts["global_mbf"] < stress.facts["global_mbf"]
    assert not np.array_equal(rest.acquisition.ct.array, stress.acquisition.ct.array), "another CT, other noise"
    for half in (rest, stress):
        write(half, tmp_path)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(tmp_path.glob("*.dcm"))]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate", "StudyTime"):
        assert len({d[keyword].value for d in headers}) == 1, keyword
    assert len({d.SOPInstanceUID for d in headers}) == len(headers)
    series = {d.SeriesInstanceUID: (d.SeriesNumber, d.Modality, d.SeriesTime, d.SeriesDescription) for d in headers}
    assert sorted(series.values()) == [
        (1, "CT", "092500.000000", "CT WB low dose"),
        (3, "PT", "093000.000000", "PET dynamic rest AC"),
        (4, "CT", "094000.000000", "CT WB low dose"),
        (6, "PT", "094500.000000", "PET dynamic stress AC"),
    ]


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fdg", "psma", "lowcount"])
def test_total_activity_read_back_is_what_was_in_the_patient(kind: str) -> None:
    bqml, affine, _ = by_pydicom(files(kind))
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000.0
    there = facts(kind)["activity_in_view_bq"]
    assert bqml.sum() * voxel_ml == pytest.approx(there, rel=0.01)
    ours = load(files(kind), Quantity.ACTIVITY_BQML, UTC).static
    assert ours.array.sum(dtype=float) * ours.voxel_volume_ml == pytest.approx(there, rel=0.01)


@pytest.mark.parametrize("kind", ["fdg", "psma", "lowcount"])
def test_suv_read_back_is_what_was_reconstructed(kind: str) -> None:
    bqml, affine, suv_per_bqml = by_pydicom(files(kind))
    pet, ours = study(kind).acquisition.pet, load(files(kind), Quantity.SUVBW, UTC).static
    rounding = pet.array.max(axis=(1, 2), keepdims=True) / 32767.0 / 2.0
    for suv in (bqml * suv_per_bqml, ours.array):
        assert (np.abs(suv - pet.array) <= 1.01 * rounding + 1e-5 * pet.array).all()
    assert np.allclose(affine, pet.affine, atol=1e-3)
    assert np.allclose(ours.affine, pet.affine, atol=1e-3)


def test_a_scan_without_attenuation_correction_has_no_suv() -> None:
    with pytest.raises(QuantityRefused, match="attenuation"):
        load(files("nac"), Quantity.SUVBW, UTC)
    assert facts("nac")["reference"].endswith("with attenuation and scatter correction, SUVbw")


@pytest.mark.parametrize("kind", RUBIDIUM)
def test_rubidium_frames_are_becquerels_per_millilitre(kind: str) -> None:
    dynamic, headers = study(kind).acquisition.dynamic, [pydicom.dcmread(path) for path in files(kind)]
    assert {(d.Units, d.DecayCorrection) for d in headers} == {("BQML", "START")}
    headers.sort(key=lambda d: (float(d.FrameReferenceTime), float(d.ImagePositionPatient[2])))
    values = np.stack([d.pixel_array * float(d.RescaleSlope) for d in headers]).reshape(dynamic.array.shape)
    rounding = dynamic.array.max(axis=(2, 3), keepdims=True) / 32767.0 / 2.0
    assert (np.abs(values - dynamic.array) <= 1.01 * rounding + 1e-5 * dynamic.array).all()
    ours = load(files(kind), Quantity.ACTIVITY_BQML, UTC).volume
    assert np.abs(ours.array - values).max() <= 1e-5 * values.max()
    assert ours.frame_start_s.tolist() == facts(kind)["frame_start_s"]
    assert ours.frame_duration_s.tolist() == facts(kind)["frame_duration_s"]
    reference = np.asarray(truth(kind, "reference").dataobj)
    late = [n for n, start in enumerate(facts(kind)["frame_start_s"]) if start >= 60.0]
    assert values[late].sum() == pytest.approx(reference[..., late].sum(dtype=float), rel=0.01)
    assert abs(values - reference.T).max() > 0, "the reference has no noise, the frames have"


@pytest.mark.parametrize("maker", ["ge", "philips"])
def test_other_makers_write_the_same_numbers(maker: str, tmp_path: Path) -> None:
    made = study("psma")
    write(made, tmp_path, maker)
    paths = sorted(tmp_path.glob("PT-*.dcm"))
    assert maker in pydicom.dcmread(paths[0]).Manufacturer.lower()
    suv = load(paths, Quantity.SUVBW, UTC).static.array
    assert np.abs(suv - made.acquisition.pet.array).max() <= 1e-4 * suv.max()


# --- the truth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_truth_files_share_the_grid_of_the_pet(kind: str) -> None:
    names = {"labels", "lesions", "reference"} | ({"k1", "k2", "mbf", "segments"} if kind in RUBIDIUM else set())
    folder = written(kind, SEED) / "truth"
    assert {path.name for path in folder.iterdir()} == {f"{name}.nii.gz" for name in names} | {"truth.json"}
    slices = pydicom.dcmread(files(kind)[0]).NumberOfSlices
    _, affine, _ = by_pydicom(files(kind)[:slices])
    x_first = RAS @ affine[:, [2, 1, 0, 3]]
    for name in names:
        image = truth(kind, name)
        assert image.shape[:3] == (40, 40, slices)
        assert np.allclose(image.affine, x_first, atol=1e-3)
        assert np.allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-3)
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert f"seed {SEED}" in bytes(image.header["descrip"]).decode()
        assert gzip.decompress((folder / f"{name}.nii.gz").read_bytes())[344:348] == b"n+1\0"
    assert len(truth(kind, "reference").shape) == (4 if kind in RUBIDIUM else 3)


def test_every_voxel_of_the_reference_lies_where_its_dicom_lies() -> None:
    bqml, affine, suv_per_bqml = by_pydicom(files("fdg"))
    image = truth("fdg", "reference")
    voxels = np.random.default_rng(0).integers(0, bqml.shape, (500, 3))
    lps = affine @ np.column_stack([voxels, np.ones(500)]).T
    places = np.rint(np.linalg.inv(image.affine) @ RAS @ lps).astype(int)[:3]
    there = np.asarray(image.dataobj)[tuple(places)]
    here = (bqml * suv_per_bqml)[tuple(voxels.T)]
    assert there == pytest.approx(here, abs=1e-3 * bqml.max() * suv_per_bqml)
    assert here.std() > 0.1


@pytest.mark.parametrize("kind", ["fdg", "psma"])
def test_lesions_lie_where_their_table_and_the_dicom_say(kind: str) -> None:
    seed = next(seed for seed in range(SEED, SEED + 9) if study(kind, seed).lesions.array.any())  # some are healthy
    image, series = truth(kind, "lesions", seed), load(files(kind, seed=seed), Quantity.SUVBW, UTC).static
    labels, rows = np.asarray(image.dataobj), facts(kind, seed)["lesions"]
    assert set(np.unique(labels[labels > 0])) == {row["label"] for row in rows if row["voxels"]}
    for row in rows:
        voxels = np.argwhere(labels == row["label"])
        assert len(voxels) == row["voxels"]
        if not len(voxels):
            continue
        ras = (image.affine @ np.append(voxels.mean(axis=0), 1.0))[:3]
        lps = (series.affine @ np.append(voxels[:, ::-1].mean(axis=0), 1.0))[:3]
        assert ras == pytest.approx(lps * (-1.0, -1.0, 1.0), abs=1e-3)
        assert lps == pytest.approx(row["centre_mm"], abs=14.0), "a voxel"
        seen = series.array[tuple(voxels[:, ::-1].T)].max()
        assert row["suv_max"] == pytest.approx(seen, abs=1e-4 + float(series.array.max()) / 32767.0)


def test_the_body_is_the_right_way_round() -> None:
    image = truth("fdg", "labels")

    def ras(organ: str) -> NDArray[np.float64]:
        voxels = np.argwhere(np.asarray(image.dataobj) == label_of("fdg", organ))
        assert len(voxels) > 2, organ
        return (image.affine @ np.append(voxels.mean(axis=0), 1.0))[:3]

    assert ras("liver")[0] > 30.0, "right"
    assert ras("spleen")[0] < -30.0, "left"
    assert ras("left ventricle")[0] < 0.0
    assert ras("spleen")[1] < ras("left ventricle")[1], "behind the heart"
    assert ras("bladder")[2] < ras("liver")[2] < ras("grey matter")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_says_what_the_files_are(kind: str) -> None:
    known, header = facts(kind), first_header(kind)
    assert (known["kind"], known["seed"], known["reference"]) == (kind, SEED, REFERENCE[kind])
    assert (known["study_uid"], known["series_uids"]["PT"]) == (header.StudyInstanceUID, header.SeriesInstanceUID)
    assert set(known["series_uids"]) == ({"PT"} if kind == "nac" else {"PT", "CT"})
    assert known["dose_bq"] == pytest.approx(
        float(header.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose)
    )
    assert int(header.PatientBirthDate[:4]) == 2026 - known["age_years"]
    present = np.unique(np.asarray(truth(kind, "labels").dataobj))
    assert {str(n) for n in present if n} <= set(known["names"]["labels"])
    assert known["prompts"] > 0


@pytest.mark.parametrize("kind", RUBIDIUM)
def test_flows_are_told_by_segment_territory_and_map(kind: str) -> None:
    known = facts(kind)
    territories = known["territories"]
    assert set(territories) == {"LAD", "LCX", "RCA"}
    mass = sum(part["mass_g"] for part in territories.values())
    flow = sum(part["mass_g"] * part["mbf_tissue"] for part in territories.values()) / mass
    assert known["global_mbf"] == pytest.approx(flow, rel=1e-3)
    assert 0.4 < known["global_mbf"] < 4.5
    segments, mbf, k1 = (np.asarray(truth(kind, name).dataobj) for name in ("segments", "mbf", "k1"))
    assert set(np.unique(segments[segments > 0])) <= set(range(1, 18))
    assert mbf[segments > 0].mean() == pytest.approx(known["global"]["mbf"], rel=1e-3)
    assert k1[segments > 0].mean() == pytest.approx(known["global"]["k1"], rel=1e-3)
    assert (k1 <= mbf + 1e-6).all(), "extraction is at most 1"


@pytest.mark.parametrize("kind", RUBIDIUM)
def test_the_curves_of_segments_follow_from_blood_and_parameters(kind: str) -> None:
    """C = (1 − V)·ρ·K1·e^(−k2·t) ⊗ C_a + V·C_a, averaged over a frame as decays (PS3.3 C.8.9.1.1.5), by hand."""
    known = facts(kind)
    blood, rate = np.array(known["curves"]["left_ventricle_bqml"]), np.log(2.0) / known["half_life_s"]
    seconds = np.arange(len(blood), dtype=float)
    left = np.exp(-rate * seconds)
    frames = list(zip(known["frame_start_s"], known["frame_duration_s"], strict=True))
    for number, curve in known["curves"]["segments_bqml"].items():
        part = known["segments"][number]
        kept = np.exp(-part["k2_tissue"] / 60.0 * seconds)
        taken = known["density_g_ml"] * part["k1_tissue"] / 60.0 * np.convolve(blood, kept)[: len(blood)]
        tissue = (1.0 - known["blood_fraction"]) * taken + known["blood_fraction"] * blood
        inside = [(seconds >= start) & (seconds < start + lasts) for start, lasts in frames]
        by_hand = [np.average(tissue[which], weights=left[which]) for which in inside]
        assert np.abs(np.array(by_hand) - curve).max() < 0.05 * max(curve), number


# --- what others say of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_fault(kind: str) -> None:
    validator = peers.program("dciodvfy")
    slices, cts = files(kind), files(kind, "CT")
    assert bool(cts) == (kind != "nac")
    for path in {slices[0], slices[len(slices) // 2], slices[-1], *cts[:1], *cts[-1:]}:
        for mode in ((), ("-new",)):
            done = subprocess.run([validator, *mode, str(path)], capture_output=True, text=True, timeout=60)
            complaints = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
            assert complaints == [], (path.name, mode)


TRACERS = {"fdg": {"FDG"}, "lowcount": {"FDG"}, "nac": {"FDG"}, "psma": {"PSMA-11", "PSMA-1007"}}


@cache
def pet_seen(kind: str) -> dict[str, Any]:
    found = inspect([written(kind, SEED)])
    assert [one["path"] for one in found["unreadable"] if one["path"].endswith(".dcm")] == []
    (pet,) = (series for series in found["series"] if series["modality"] == "PT")
    others = [series for series in found["series"] if series["modality"] == "CT"]
    assert [series["complete"] for series in others] == ([] if kind == "nac" else [True])
    return pet


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_knows_every_kind(kind: str) -> None:
    pet = pet_seen(kind)
    assert pet["tracer"] in TRACERS.get(kind, {"Rb-82"})
    assert pet["tracer"] == study(kind).acquisition.tracer
    assert (pet["tracer_confidence"], pet["complete"]) == ("coded and agreeing", True)
    assert pet["kind"] == ("dynamic" if kind in RUBIDIUM else "static")
    assert pet["attenuation_corrected"] == (kind != "nac")
    assert pet["frames"] == (len(FRAMES) if kind in RUBIDIUM else 1)
    assert pet["suv"]["status"] == ("refused" if kind == "nac" else "ok")


def test_relative_counts_show_how_many_were_left_out() -> None:
    assert pet_seen("lowcount")["relative_counts"] == pytest.approx(
        SHARE * pet_seen("fdg")["relative_counts"], rel=0.01
    )
    assert facts("lowcount")["count_fraction"] == SHARE


def test_patients_with_prostate_cancer_are_men() -> None:
    assert study("psma").acquisition.sex == "M"
    assert first_header("psma").PatientSex == "M"
    assert examination_of(study("psma")).patient_id.endswith("M"), "no woman of that seed is this patient"


# --- asking for it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_progress_goes_from_nothing_to_all(kind: str) -> None:
    steps = [done for _, done in once(kind, SEED)[1]]
    assert (steps[0], steps[-1]) == (0.0, 1.0)
    assert steps == sorted(steps)
    assert len({what for what, _ in once(kind, SEED)[1]}) >= 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "fgd"}, "kind: expected one of fdg, psma"),
        ({"site": "tiny"}, "site: expected one of small, standard"),
        ({"share": 0.5}, "only a lowcount"),
        ({"kind": "lowcount", "share": 1.5}, "above 0 and at most 1"),
        ({"kind": "lowcount", "share": 0.0}, "above 0 and at most 1"),
        ({"tracer": "PSMA-11"}, "tracer: expected one of FDG"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(**{"kind": "fdg", "seed": 1, "site": COARSE, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "fgd"}, "kind: expected one of"),
        ({"preset": "tiny"}, "preset: expected one of small, standard"),
        ({"maker": "acme"}, "maker: expected one of siemens"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"share": 0.5}, "share: only lowcount"),
        ({"kind": "lowcount", "share": 0.0}, "share: expected above 0"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_computed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Wanted(**{"kind": "fdg", "seed": 1, "preset": "small", "out": Path(), **changes})


def test_the_command_offers_what_the_simulator_knows() -> None:
    assert tuple(cli.Kind) == KINDS
    assert tuple(cli.Preset) == tuple(SITES)
    assert tuple(cli.Maker) == get_args(MakerName)


def test_shares_are_drawn_where_none_is_asked_for() -> None:
    made, _ = run("lowcount", SEED, None)
    assert made.facts["count_fraction"] in SHARES
    assert made.acquisition.frame_duration_s == pytest.approx(made.facts["count_fraction"] * COARSE.bed_s)


def test_a_folder_takes_one_study_and_nothing_is_overwritten(tmp_path: Path) -> None:
    def check(kind: str, seed: int = SEED, folder: Path = tmp_path) -> None:
        check_out(folder, STATES.get(kind, ""), wanted(kind, seed).new_uid("study", 0))

    check("rb82-rest")
    write(study("rb82-rest"), tmp_path)
    check("rb82-stress")
    with pytest.raises(CannotDo, match="holds this simulation"):
        check("rb82-rest")
    for kind, seed in (("rb82-stress", SEED + 1), ("fdg", SEED)):
        with pytest.raises(CannotDo, match="without another study"):
            check(kind, seed)
    with pytest.raises(CannotDo, match="holds this simulation"):
        check("fdg", folder=written("fdg", SEED))
    with pytest.raises(CannotDo, match="without the truth"):
        check_truth(tmp_path / "truth")
    check_truth(tmp_path / "another")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError):
        write(study("rb82-rest"), tmp_path)
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "notes.dcm").write_text("no DICOM")
    with pytest.raises(CannotDo, match=r"notes\.dcm"):
        check("fdg", folder=strange)


def test_nifti_turns_axes_and_handedness() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    affine = np.array([[0, 0, 2.0, 10], [0, 3.0, 0, 20], [5.0, 0, 0, 30], [0, 0, 0, 1]])
    image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti.encoded(array, affine, "words")))
    assert np.asarray(image.dataobj)[3, 2, 1] == array[1, 2, 3]
    # (z, y, x) = (1, 2, 3) lies at LPS (10 + 3·2, 20 + 2·3, 30 + 5) = (16, 26, 35)
    assert (image.affine @ [3, 2, 1, 1])[:3].tolist() == [-16.0, -26.0, 35.0]
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert nifti.encoded(array, affine, "words") == nifti.encoded(array, affine, "words")


def modules_of(code: str) -> Iterator[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return iter(done.stdout.split())


def test_only_writing_a_truth_loads_nibabel() -> None:
    assert "nibabel" not in modules_of("import daemon.simulate")
    assert not {"numpy", "scipy", "engines"} & set(modules_of("import daemon.cli"))
