"""`tracerd simulate`: a simulated examination as the files a scanner would send, and its truth as NIfTI and JSON.

What is simulated is said in `engines/simulation/study.py`, how a scanner writes it in `dicom_io/write/scanner.py`.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from daemon import nifti
from daemon.commands import CannotDo
from daemon.node import TRACERD_VERSION
from daemon.show import console, table
from daemon.terminal import watched
from dicom_io.write import scanner
from dicom_io.write.makers import MakerName
from engines.simulation.study import KINDS, SITES, STATES, Kind, Progress, Study, simulate

STARTED = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""Start of the first PET of every simulated study: the same seed gives the same bytes."""
STRESS_AFTER = timedelta(minutes=15)
CT_BEFORE = timedelta(minutes=5)
SERIES_OF_REST = 3
UNITS: Mapping[str, str] = {
    "labels": "organs by number",
    "lesions": "lesions by number",
    "k1": "K1 mL/min/g",
    "mbf": "MBF mL/min/g",
    "k2": "k2 1/min",
    "segments": "AHA segments by number",
    "suvbw": "SUVbw g/mL",
    "activity_bqml": "Bq/mL",
}
TRUTH_JSON = "truth.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `tracerd simulate` was asked for.

    kind : one of study.KINDS; preset : one of study.SITES
    truth : folder for the truth, None = not wanted
    share : of the counts, `lowcount` only; None = drawn

    Raises
    ------
    ValueError
        An unknown kind, preset or maker, a seed below 0, or a share that the kind has not.
    """

    kind: Kind
    seed: int
    preset: str
    out: Path
    truth: Path | None = None
    share: float | None = None
    maker: MakerName = "siemens"

    def __post_init__(self) -> None:
        for what, known in (("kind", KINDS), ("preset", tuple(SITES)), ("maker", get_args(MakerName))):
            if (given := getattr(self, what)) not in known:
                raise ValueError(f"{what}: expected one of {', '.join(known)}, got {given}")
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")
        if self.share is not None and self.kind != "lowcount":
            raise ValueError(f"share: only lowcount has one, got {self.share} for {self.kind}")
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise ValueError(f"share: expected above 0 and at most 1, got {self.share}")

    @property
    def new_uid(self) -> scanner.NewUid:
        """UIDs by all that the bytes depend on, so that no UID ever stands for two contents.

        Rest and stress share them: they are one study, and their phases tell their series apart.
        """
        study = "rb82" if self.kind in STATES else self.kind
        parts = ("tracerd simulate", TRACERD_VERSION, study, self.preset, self.seed, self.maker, self.share)
        return scanner.hashed_uids("|".join(map(str, parts)))


def run_simulation(wanted: Wanted) -> dict[str, Any]:
    """Simulate, write, and say what was written; returns the document of `tracerd simulate --json`.

    Raises
    ------
    CannotDo
        A folder holds what would be overwritten, or another study.
    """
    started = time.monotonic()
    new_uid = wanted.new_uid
    check_out(wanted.out, STATES.get(wanted.kind, ""), new_uid("study", 0))
    if wanted.truth is not None:
        check_truth(wanted.truth)
    with progress_bar() as progress:
        study = simulate(
            wanted.kind,
            wanted.seed,
            wanted.preset,
            with_reference=wanted.truth is not None,
            share=wanted.share,
            progress=progress,
        )
    dicom = write_dicom(study, wanted.out, new_uid, wanted.maker)
    truth: list[Path] = []
    if wanted.truth is not None:
        made = {"preset": wanted.preset, "maker": wanted.maker, "tracerd_version": TRACERD_VERSION}
        truth = write_truth(study, wanted.truth, made | uids_of(dicom))
    return {
        "kind": wanted.kind,
        "seed": wanted.seed,
        "preset": wanted.preset,
        "maker": wanted.maker,
        "tracer": study.acquisition.tracer,
        **uids_of(dicom),
        "out": str(wanted.out),
        "instances": {modality: sum(one.Modality == modality for one in dicom.values()) for modality in ("CT", "PT")},
        "truth": [str(path) for path in truth],
        "seconds": round(time.monotonic() - started, 3),
    }


def check_out(out: Path, phase: str, study_uid: str) -> None:
    """A folder takes one study. Rest and stress of one may lie side by side; nothing is ever overwritten.

    Raises
    ------
    CannotDo
        The folder holds files of another study, or those that would be written.
    """
    for path in sorted(out.glob("*.dcm")):
        if study_uid_in(path) != study_uid:
            raise CannotDo(f"{out}: expected a folder without another study, got one with {path.name}")
        if path.name.startswith(file_prefix(phase)):
            raise CannotDo(f"{out}: holds this simulation already ({path.name}); remove it, or name another folder")


def study_uid_in(path: Path) -> str | None:
    """Study Instance UID of a file; None where it is no DICOM, or has none."""
    try:
        header = pydicom.dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
    except InvalidDicomError:
        return None
    return str(header.StudyInstanceUID) if "StudyInstanceUID" in header else None


def check_truth(folder: Path) -> None:
    """A folder takes the truth of one examination.

    Raises
    ------
    CannotDo
        It holds one.
    """
    for path in sorted([*folder.glob("*.nii.gz"), *folder.glob(TRUTH_JSON)]):
        raise CannotDo(f"{folder}: expected a folder without the truth of another simulation, got one with {path.name}")


def file_prefix(phase: str) -> str:
    """What the names of DICOM files begin with."""
    return f"{phase}-" if phase else ""


def examination_of(study: Study, maker: MakerName = "siemens") -> scanner.Examination:
    """Who is examined, and when. Where a seed draws another sex for another kind, that is another patient."""
    scan, phase = study.acquisition, STATES.get(study.kind, "")
    stress = phase == "stress"
    return scanner.Examination(
        started=STARTED + STRESS_AFTER if stress else STARTED,
        study_started=STARTED - CT_BEFORE,
        patient_id=f"SIM{scan.seed:04d}{scan.sex}",
        patient_name=f"SIMULATED^SEED {scan.seed}",
        patient_birth_date=f"{STARTED.year - study.facts['age_years']}0101",
        study_description="PET/CT heart" if phase else "PET/CT whole body",
        maker=maker,
        beds=study.facts.get("beds", 1),
        phase=phase,
        first_series=1 + SERIES_OF_REST if stress else 1,
    )


def write_dicom(
    study: Study,
    out: Path,
    new_uid: scanner.NewUid,
    maker: MakerName = "siemens",
    *,
    omit: Sequence[str] = (),
) -> dict[Path, pydicom.Dataset]:
    """Every instance as a file of its own, flat in a folder: CT-0001.dcm …, PT-0001.dcm …, of Rb-82 rest-PT-0001.dcm.

    omit : attributes the scanner forgets

    Raises
    ------
    FileExistsError
        A file of that name.
    """
    examination = examination_of(study, maker)
    instances = scanner.write(study.acquisition, examination, new_uid=new_uid)
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for dataset in watched(instances, "writing", len(instances)):
        name = f"{file_prefix(examination.phase)}{dataset.Modality}-{dataset.InstanceNumber:04d}.dcm"
        for keyword in omit:
            dataset.pop(keyword, None)
        dataset.save_as(out / name, enforce_file_format=True, overwrite=False)
        written[out / name] = dataset
    return written


def uids_of(dicom: Mapping[Path, pydicom.Dataset]) -> dict[str, Any]:
    """What ties a truth to its study."""
    one = next(iter(dicom.values()))
    return {
        "study_uid": str(one.StudyInstanceUID),
        "frame_of_reference_uid": str(one.FrameOfReferenceUID),
        "series_uids": {str(each.Modality): str(each.SeriesInstanceUID) for each in dicom.values()},
    }


def write_truth(study: Study, folder: Path, made: Mapping[str, Any]) -> list[Path]:
    """The truth on the grid of the PET, as docs/simulation.md says; `made` joins the facts in truth.json.

    Raises
    ------
    FileExistsError
        A file of that name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    affine, written = study.organs.affine, []
    images: dict[str, NDArray[Any]] = {"labels": study.organs.array, "lesions": study.lesions.array, **study.maps}
    units = dict(UNITS)
    if study.reference is not None:
        images["reference"], units["reference"] = study.reference.array, UNITS[study.reference.quantity]
    if study.segments is not None:
        images["segments"] = study.segments.array
    for name, array in watched(images.items(), "truth", len(images)):
        described = f"SIMULATED {study.kind} seed {study.acquisition.seed}: {units[name]}"
        written.append(_new_file(folder / f"{name}.nii.gz", nifti.encoded(array, affine, described)))
    maps = {"labels": study.organs, "lesions": study.lesions, "segments": study.segments}
    names = {name: {str(n): text for n, text in one.names.items()} for name, one in maps.items() if one is not None}
    document = {**study.facts, **made, "names": names}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    return [*written, _new_file(folder / TRUTH_JSON, text.encode())]


def _new_file(path: Path, content: bytes) -> Path:
    with path.open("xb") as file:
        file.write(content)
    return path


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """What to tell a simulation's progress to: a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _what, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<14}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("body", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def show_simulation(outcome: Mapping[str, Any]) -> None:
    """What was written, and what one may do with it."""
    out, instances = console(), outcome["instances"]
    wrote = " and ".join(f"{count} {modality}" for modality, count in instances.items() if count)
    title = f"Simulated {outcome['kind']} ({outcome['tracer']}), seed {outcome['seed']}, {outcome['preset']}"
    out.print(f"{title}: {wrote} instances in {outcome['out']} ({outcome['seconds']:.0f} s)")
    if outcome["truth"]:
        out.print(
            f"Truth: {', '.join(Path(path).name for path in outcome['truth'])} in {Path(outcome['truth'][0]).parent}"
        )
    folder = shlex.quote(outcome["out"])
    out.print(
        table(
            ("", ""),
            [
                ("look at it", f"tracerd inspect {folder}"),
                ("send it", f"storescu -aec TRACERD --scan-directories HOST 11112 {folder}"),
            ],
        )
    )
