"""`tracerd inspect`: the document that scripts depend on, files that are not what they seem, the text for people."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from rich.console import Console

from daemon import inspection as text_of
from dicom_io.folder import File, collect, files_below, sandbox_for
from dicom_io.inspect import inspect, inspection
from dicom_io.survey import survey
from tests import make, make_enhanced

SHAPE = (6, 12, 10)
NUMBER = (int, float)
CONTRACT: dict[str, tuple[type, ...]] = {
    "series_uid": (str,),
    "modality": (str,),
    "tracer": (str, type(None)),
    "radionuclide": (str, type(None)),
    "kind": (str, type(None)),
    "attenuation_corrected": (bool, type(None)),
    "complete": (bool, type(None)),
    "frames": (int,),
    "shape": (list, type(None)),
    "spacing_mm": (list, type(None)),
    "units": (str, type(None)),
    "suv": (dict,),
    "problems": (list,),
}
SUV_CONTRACT: dict[str, tuple[type, ...]] = {
    "type": (str, type(None)),
    "factor": (*NUMBER, type(None)),
    "factor_min": (*NUMBER, type(None)),
    "factor_max": (*NUMBER, type(None)),
    "reference": (str, type(None)),
    "reason": (str, type(None)),
    "min": (*NUMBER, type(None)),
    "max": (*NUMBER, type(None)),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> make.Study:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=SHAPE, ct_shape=(12, 24, 20))


def repeated(study: make.Study, folder: Path, changes: list[dict[str, Any]]) -> Path:
    """The PET once for every dictionary of changes, as one series of new instances."""
    for t, values in enumerate(changes):
        for z, path in enumerate(study.pet):
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{t}.{z}"
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
            make.save(dataset, folder / f"{t}-{z}.dcm")
    return folder


def dynamic(study: make.Study, folder: Path) -> Path:
    times = [{"AcquisitionTime": clock, "ActualFrameDuration": 10_000} for clock in ("093000", "093010", "093020")]
    return repeated(
        study, folder, [{"SeriesType": ["DYNAMIC", "IMAGE"], "NumberOfTimeSlices": 3, **at} for at in times]
    )


def gated(study: make.Study, folder: Path) -> Path:
    gates = {"SeriesType": ["GATED", "IMAGE"], "NumberOfTimeSlots": 4, "NumberOfRRIntervals": 1}
    return repeated(study, folder, [{**gates, "TriggerTime": str(ms)} for ms in (0, 200, 400, 600)])


def refused(study: make.Study, folder: Path) -> Path:
    return repeated(study, folder, [{"PatientWeight": None}])


def report(study: make.Study, folder: Path) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComprehensiveSRStorage, "1.2.3.9"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = study.study_uid, "1.2.3.8", "SR"
    dataset.ValueType = "CONTAINER"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    make.save(dataset, folder / "sr.dcm")
    return folder


def enhanced(study: make.Study, folder: Path) -> Path:
    frames = make_enhanced.static(4)
    make.save(make_enhanced.enhanced_pet(frames, make_enhanced.pixels(4)), folder / "enhanced.dcm")
    return folder


SERIES: dict[str, Callable[[make.Study, Path], Path]] = {
    "static": lambda study, _: study.pet[0].parent,
    "CT": lambda study, _: study.ct[0].parent,
    "dynamic": dynamic,
    "gated": gated,
    "refused": refused,
    "SR": report,
    "enhanced": enhanced,
}
KIND = {"dynamic": "dynamic", "gated": "gated", "SR": "other"}
SUV_DEFINED = {"static", "dynamic", "gated", "enhanced"}


@pytest.mark.parametrize("name", list(SERIES))
def test_the_document_keeps_its_contract(study: make.Study, tmp_path: Path, name: str) -> None:
    document = json.loads(json.dumps(inspect([SERIES[name](study, tmp_path / name)]), allow_nan=False))
    assert document["unreadable"] == []
    (facts,) = document["series"]
    for key, types in CONTRACT.items():
        assert isinstance(facts[key], types), (key, facts[key])
    for key, types in SUV_CONTRACT.items():
        assert isinstance(facts["suv"][key], types), (key, facts["suv"][key])
    assert all(isinstance(problem, str) for problem in facts["problems"])
    assert facts["kind"] == KIND.get(name, "static")
    assert facts["complete"] is True
    assert (facts["suv"]["status"] == "ok") is (name in SUV_DEFINED), facts["suv"]["reason"]
    given = ("factor", "factor_min", "factor_max", "reference", "min", "max")
    assert {facts["suv"][key] is not None for key in given} == {name in SUV_DEFINED}, facts["problems"]
    assert (facts["suv"]["reason"] is None) is (name in SUV_DEFINED)
    if name != "SR":
        dimensions = 4 if name in {"dynamic", "gated"} else 3
        assert len(facts["shape"]) == dimensions and all(isinstance(size, int) for size in facts["shape"])
        assert len(facts["spacing_mm"]) == 3 and all(isinstance(mm, float) for mm in facts["spacing_mm"])
        assert facts["frames"] == (facts["shape"][0] if dimensions == 4 else 1)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless],
    ids=lambda uid: uid.name,
)
def test_the_range_of_the_pixels_is_that_of_every_encoding(study: make.Study, tmp_path: Path, syntax: Any) -> None:
    for path in study.pet:
        dataset = pydicom.dcmread(path)
        if syntax.is_compressed and not syntax.is_deflated:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        make.save(dataset, tmp_path / path.name)
    (facts,) = inspect([tmp_path])["series"]
    assert facts["suv"]["max"] == pytest.approx(float(study.suv.max()), rel=1e-4)
    assert facts["suv"]["min"] == pytest.approx(float(study.suv.min()), abs=1e-3)


def test_the_range_of_a_multi_frame_object_takes_the_slope_of_each_frame(tmp_path: Path) -> None:
    """The largest stored value need not be the largest SUV: the slope of frame z is 2 · (1 + z / 4)."""
    stored = np.full((3, 6, 8), 100, dtype=np.uint16)
    stored[0, 0, 0] = 140  # 140 · 2 = 280 < 100 · 3
    make.save(make_enhanced.enhanced_pet(make_enhanced.static(3), stored), tmp_path / "enhanced.dcm")
    (facts,) = inspect([tmp_path])["series"]
    assert facts["suv"]["max"] / facts["suv"]["factor"] == pytest.approx(300.0)
    assert facts["suv"]["min"] / facts["suv"]["factor"] == pytest.approx(200.0)


def test_signed_pixels_and_spare_bits_are_read_as_they_are(study: make.Study, tmp_path: Path) -> None:
    """12 bits stored in 16 with rubbish above them: -1 and 2047 (PS3.5 8.1.1)."""
    dataset = pydicom.dcmread(study.pet[0])
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
    values = np.zeros((dataset.Rows, dataset.Columns), dtype=np.uint16)
    values[0, :3] = 0x0FFF, 0x07FF, 0xF000  # -1, 2047, 0 with spare bits set
    dataset.PixelData = values.astype("<u2").tobytes()
    assert survey(make.save(dataset, tmp_path / "signed.dcm")).extremes == ((-1, 2047),)


# Files


def test_copies_are_one_object_and_other_contents_are_told(study: make.Study, tmp_path: Path) -> None:
    shutil.copytree(study.pet[0].parent, tmp_path / "PT")
    shutil.copy(study.pet[0], tmp_path / "again.dcm")
    shutil.copy(study.pet[0], tmp_path / "and again.dcm")
    (facts,) = inspect([tmp_path])["series"]
    assert (facts["instances"], facts["problems"]) == (SHAPE[0], [])
    other = pydicom.dcmread(study.pet[0])
    other.PatientWeight = 71
    make.save(other, tmp_path / "heavier.dcm")
    (facts,) = inspect([tmp_path])["series"]
    assert facts["instances"] == SHAPE[0] + 1
    assert "copies: 1 instances differ from others with the same UID" in facts["problems"]


def test_a_bad_file_costs_itself_only(study: make.Study, tmp_path: Path) -> None:
    shutil.copytree(study.pet[0].parent, tmp_path / "PT")
    (tmp_path / "cut.dcm").write_bytes(study.pet[0].read_bytes()[:-9])
    short = pydicom.dcmread(study.pet[1])
    short.Rows = 24
    make.save(short, tmp_path / "short.dcm")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    document = inspect([tmp_path, tmp_path / "notes.txt"])
    assert [facts["instances"] for facts in document["series"]] == [SHAPE[0]]
    told = {Path(one["path"]).name: one["code"] for one in document["unreadable"]}
    assert told == {"cut.dcm": "truncated", "short.dcm": "pixel-length", "notes.txt": "not-dicom"}


def test_lossy_or_broken_pixels_give_no_range_and_a_reason(study: make.Study, tmp_path: Path) -> None:
    for path in study.pet:
        dataset = pydicom.dcmread(path)
        dataset.LossyImageCompression = "01"
        make.save(dataset, tmp_path / path.name)
    (facts,) = inspect([tmp_path])["series"]
    assert facts["suv"]["max"] is None
    (problem,) = [problem for problem in facts["problems"] if problem.startswith("pixels: ")]
    assert problem.startswith("pixels: lossy: ")
    assert problem.endswith("in 6 of 6 instances")


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect([tmp_path / "absent"])


def test_files_are_found_once_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = files_below([tmp_path, tmp_path / "a", tmp_path / "c"])
    assert [str(path.relative_to(tmp_path)) for path, _ in found] == ["c", "a/1", "b/10", "b/2"]
    assert [named for _, named in found] == [True, False, False, False]


def test_what_slices_share_is_kept_once(study: make.Study) -> None:
    """Ten thousand slices must fit: a header of its own would take more than 6 kB each, its differences take 4."""
    files = [File(path, named=True) for path in study.pet] * 300
    with sandbox_for(len(files)) as sandbox:
        tracemalloc.start()
        surveys = list(sandbox.survey_many(path for path, _ in files))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(surveys) == 1800
    assert taken / len(surveys) < 5000


def test_one_child_or_several_say_the_same(study: make.Study) -> None:
    files = [File(path, named=True) for path in study.files]
    documents = []
    for expected in (1, 1000):
        with sandbox_for(expected) as sandbox:
            documents.append(inspection(collect(files, sandbox), UTC))
    assert documents[0] == documents[1]


SIDE_BY_SIDE = """
import json, sys
from pathlib import Path
from dicom_io import inspect
from dicom_io.forked import Forked, has_one_thread, side_by_side
assert has_one_thread()
alone = inspect.inspect([Path(sys.argv[1])])
forks = []
inspect.INSTANCES_PER_PROCESS = 1
inspect.cores = lambda: 3
inspect.side_by_side = lambda work, processes: forks.append(processes) or side_by_side(work, processes)
assert json.dumps(inspect.inspect([Path(sys.argv[1])])) == json.dumps(alone)
assert forks == [3], forks
assert [series["modality"] for series in alone["series"]] == ["CT", "PT"]
def raises():
    raise LookupError("here")
for work in ([lambda: 1, raises], [raises, lambda: 1]):
    try:
        side_by_side(work, 2)
    except LookupError as error:
        print(error)
"""


def test_series_are_understood_side_by_side_as_one_after_the_other(study: make.Study) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE, str(study.pet[0].parent.parent)],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("here\nhere\n", "")


# Text


def shown(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, width: int, *, terminal: bool = False) -> str:
    colours = "standard" if terminal else None
    console = Console(width=width, markup=False, highlight=False, force_terminal=terminal, color_system=colours)
    monkeypatch.setattr(text_of, "console", lambda: console)
    with console.capture() as captured:
        text_of.show_inspection(document)
    return captured.get()


def test_a_series_at_a_glance(study: make.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = (study.pet[0].parent, dynamic(study, tmp_path / "dynamic"), refused(study, tmp_path / "refused"))
    document = {"series": [facts for folder in folders for facts in inspect([folder])["series"]], "unreadable": []}
    text = shown(document, monkeypatch, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("FDG F-18 (coded and agreeing)") == 3
    assert text.count("attenuation-corrected") == 3
    assert "6 × 12 × 10 voxels" in text
    assert "3 frames from 0 to 30 s, each 6 × 12 × 10 voxels" in text
    assert "yes: 18 of 18 slices" in text
    assert f"{study.suv.max():.2f} g/mL" in text
    assert "\x1b" not in text
    coloured = shown(document, monkeypatch, 80, terminal=True)
    assert coloured.count("\x1b[32mok") == 2
    assert coloured.count("\x1b[1;31mREFUSED") == 1


@pytest.mark.parametrize(
    ("uptake_min", "said"), [(-0.25, " 0 min after"), (0.4, " 0 min after"), (61.6, " 62 min after")]
)
def test_a_scan_that_began_with_the_injection(
    study: make.Study, monkeypatch: pytest.MonkeyPatch, uptake_min: float, said: str
) -> None:
    """Scans of perfusion begin some seconds before the injection: those are no negative minutes."""
    document = inspect([study.pet[0].parent])
    document["series"][0]["uptake_min"] = uptake_min
    assert said in shown(document, monkeypatch, 160)


def test_a_refusal_says_why_and_what_helps(study: make.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(inspect([refused(study, tmp_path)]), monkeypatch, 160)
    assert "REFUSED: Patient's Weight (0010,1030)" in text
    assert "Enter it at the scanner or the PACS and send the series again." in text
    assert text.count("Patient's Weight") == 1


def test_unreadable_files_are_told_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [{"path": f"/data/{number}.dcm", "code": "truncated", "reason": "incomplete element"} for number in range(9)]
    text = shown({"series": [], "unreadable": bad}, monkeypatch, 160)
    assert "incomplete element [truncated], 9 files" in text
    assert "/data/4.dcm" in text
    assert "/data/5.dcm" not in text
    assert "and 4 more" in text
