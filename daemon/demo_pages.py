"""The results of the demonstration: pages and a table, drawn from the files that arrived at the PACS."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from rich.console import Console
from sqlalchemy import select

from config.settings import Settings
from daemon.ask import reading
from daemon.readback import Report, Reported, read_colours, read_labels, read_report
from daemon.show import table
from db import deliveries, schema
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import pages
from dicom_io.write.header import RESEARCH_USE_ONLY
from engines.contract import Acquisition, Quantity, Volume
from engines.metrics import dice
from engines.simulation.study import Kind

SUV_WINDOW = (0.0, 7.0)
SUV_UNIT = "SUVbw [g/mL]"
LEGEND = (
    "lesions: simulated ones that a region touches. Dice: of those regions, against the lesions as simulated. other: "
    "volume of the other regions, which are no disease. "
    "seconds: from the last object received to the last result accepted by the PACS."
)


class DemoFailed(Exception):
    """The demonstration did not come to its end."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was sent: what is true about its first examination, and the PET files of that."""

    number: int
    kinds: tuple[Kind, ...]
    acquisition: Acquisition
    folder: Path
    study_uid: str
    pet: tuple[Path, ...]
    files: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What the node's database says became of a study."""

    rule: str
    state: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Score:
    """Regions against the simulated lesions.

    dice : of the regions that touch a lesion; elsewhere_ml : volume of the others
    """

    found: int
    lesions: int
    dice: float
    elsewhere_ml: float


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of the table, and the files that were left for it by what they are."""

    number: int
    kinds: tuple[Kind, ...]
    fate: Fate
    totals: Mapping[str, float]
    score: Score | None
    files: Mapping[str, Path]


def show(study: Study, settings: Settings, received: Path, out: Path) -> Shown:
    """Copy what the PACS received of a study to out/study-N/ and draw its page from that and the sent PET."""
    fate = fate_of(study, settings)
    place = out / f"study-{study.number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    objects = {}
    files = {}
    for path in sorted(received.iterdir()):
        dataset = dcmread(path)
        if dataset.StudyInstanceUID == study.study_uid:
            objects[str(dataset.Modality)] = dataset
            files[str(dataset.Modality)] = Path(shutil.copyfile(path, place / f"{dataset.Modality.lower()}.dcm"))
    if "SR" in objects:
        page, totals, score = page_of_results(study, fate, objects)
    else:
        page, totals, score = page_of_refusal(study, fate), {}, None
    files["page"] = place / "page.png"
    pages.save(pages.study_page(page), files["page"])
    return Shown(study.number, study.kinds, fate, totals, score, files)


def fate_of(study: Study, settings: Settings) -> Fate:
    """Read the study's newest job and how long everything took since its last object arrived."""
    with reading(settings) as turn:
        row = turn.session.scalars(select(schema.Study).where(schema.Study.study_uid == study.study_uid)).one()
        newest = select(schema.Job).where(schema.Job.study_id == row.id).order_by(schema.Job.id.desc())
        job = turn.session.scalars(newest.limit(1)).one()
        accepted = [one.accepted_at for one in deliveries.of_job(turn.session, job.id) if one.accepted_at]
        end = max(accepted, default=job.finished or row.last_arrival)
        return Fate(job.rule, job.state, job.reason or "", (end - row.last_arrival).total_seconds())


def page_of_results(
    study: Study, fate: Fate, objects: Mapping[str, Dataset]
) -> tuple[pages.Page, Mapping[str, float], Score | None]:
    """The page of a processed study, its totals and its score."""
    pet = load(study.pet, Quantity.SUVBW, UTC)
    report = read_report(objects["SR"])
    segmentation = objects.get("SEG")
    labels = None if segmentation is None else read_labels(segmentation, pet.static.array.shape, pet.static.affine)
    colours = {} if segmentation is None else read_colours(segmentation)
    lesions = [group for group in report.groups if group.segment is not None]
    regions = tuple(
        pages.Region(group.segment or 0, colours.get(group.segment or 0, (0.8, 0.1, 0.1)), cells_of(group))
        for group in lesions
    )
    totals = {name: sum(group.measures[name] for group in lesions) for name in ("mtv_ml", "tlg_g")}
    page = pages.Page(
        title=title_of(study, fate),
        facts=facts_of(study, pet),
        headline=headline(len(lesions), totals),
        pet=pet.static,
        labels=labels,
        columns=pages.LESION_COLUMNS,
        regions=regions,
        notes=(*notes_of(report), "PET as the scanner sent it; regions and numbers as the PACS received them."),
        window=SUV_WINDOW,
        unit=SUV_UNIT,
    )
    return page, totals, None if labels is None else score(labels, pet.static, study.acquisition)


def page_of_refusal(study: Study, fate: Fate) -> pages.Page:
    """The page of a study that was not processed: the activity, of frames the last, and why there is no result."""
    pet = load(study.pet, Quantity.ACTIVITY_BQML, UTC)
    shown = pet.volume if isinstance(pet.volume, Volume) else pet.volume.frame(-1)
    volume = replace(shown, array=shown.array / np.float32(1000.0))
    highest = float(np.ceil(np.quantile(volume.array, 0.999)))
    return pages.Page(
        title=title_of(study, fate),
        facts=facts_of(study, pet),
        headline=f"Not processed ({fate.state})",
        pet=volume,
        labels=None,
        columns=(),
        regions=(),
        notes=(fate.reason,),
        window=(0.0, highest),
        unit="activity concentration [kBq/mL]",
    )


def title_of(study: Study, fate: Fate) -> str:
    """Which study, and which rule took it."""
    return f"Study {study.number}, {' and '.join(study.kinds)}  ·  {fate.rule}"


def facts_of(study: Study, pet: LoadedSeries) -> tuple[str, ...]:
    """What people look at first, from the headers of the sent PET."""
    header = pet.datasets[0]
    weight = header.get("PatientWeight")
    shown = pet.volume if isinstance(pet.volume, Volume) else pet.volume.frame(-1)
    slices = f"{len(shown.array)} slices of {shown.spacing_mm[0]:g} mm"
    frames = "" if isinstance(pet.volume, Volume) else f", {len(pet.volume.array)} frames"
    return (
        f"{study.acquisition.tracer} {study.acquisition.radionuclide}, simulated",
        f"{float(weight):g} kg" if weight else "weight missing",
        f"{header.SeriesType[0].lower()}, {slices}{frames}",
    )


def headline(count: int, totals: Mapping[str, float]) -> str:
    """The result in one line."""
    if not count:
        return "No region found"
    return f"{count} regions, MTV {totals['mtv_ml']:.1f} mL, TLG {totals['tlg_g']:.0f} g"


def cells_of(group: Reported) -> tuple[str, ...]:
    """A measurement group as a line of the table; a dash where the report has no such measure."""
    digits = {"mtv_ml": 1, "suv_max": 1, "suv_mean": 1, "suv_peak": 1, "tlg_g": 0}
    numbers = (f"{group.measures[name]:.{n}f}" if name in group.measures else "–" for name, n in digits.items())
    return str(group.segment), *numbers


def notes_of(report: Report) -> tuple[str, ...]:
    """What the report says about method and trust; that it is for research stands in the banner already."""
    method = [f"Method: {text}" for text in report.sentences.get("Measurement Method", ())]
    reference = report.sentences.get("SUV body weight calculation method", ())
    comments = [text for text in report.sentences.get("Comment", ()) if not text.startswith(RESEARCH_USE_ONLY)]
    return (*method, *reference, *comments)


def score(labels: NDArray[np.uint16], pet: Volume, acquisition: Acquisition) -> Score:
    """Compare the segmented regions with the truth of the simulation, both turned upright."""
    truth_map = acquisition.truth
    if truth_map is None:
        raise DemoFailed("the simulation gave no truth")
    truth = pages.upright(truth_map.array, truth_map.affine)[0]
    found = pages.upright(labels, pet.affine)[0]
    touching = np.unique(found[(truth > 0) & (found > 0)])
    on_lesions = np.isin(found, touching)
    elsewhere = np.count_nonzero((found > 0) & ~on_lesions) * pet.voxel_volume_ml
    hit = np.unique(truth[(truth > 0) & (found > 0)])
    return Score(len(hit), int(truth.max()), dice(on_lesions, truth > 0), float(elsewhere))


def print_table(say: Console, shown: Sequence[Shown]) -> None:
    """What became of every study, one line each, and the reasons below."""
    columns = ("study", "kind", "rule", "state", "lesions", "Dice", "MTV mL", "TLG g", "other mL", "seconds")
    say.print()
    say.print(table(columns, [_line(one) for one in shown]))
    say.print()
    for one in shown:
        if one.fate.reason:
            say.print(f"Study {one.number} was {one.fate.state}: {one.fate.reason}")
    say.print(LEGEND, style="dim")


def _line(one: Shown) -> tuple[Any, ...]:
    score_, totals = one.score, one.totals
    return (
        one.number,
        " ".join(one.kinds),
        one.fate.rule,
        one.fate.state,
        f"{score_.found} of {score_.lesions}" if score_ else "",
        f"{score_.dice:.3f}" if score_ else "",
        f"{totals['mtv_ml']:.1f}" if totals else "",
        f"{totals['tlg_g']:.0f}" if totals else "",
        f"{score_.elsewhere_ml:.1f}" if score_ else "",
        f"{one.fate.seconds:.1f}",
    )


def check_results(shown: Sequence[Shown]) -> None:
    """Raise unless every study has what it must have: SEG, SR and page, or a refusal and its page."""
    missing = []
    for one in shown:
        expected = {"page"} if one.fate.state == "rejected" else {"SEG", "SR", "page"}
        missing += [f"{what} of study {one.number}" for what in sorted(expected - set(one.files))]
    if missing:
        raise DemoFailed(f"not there: {', '.join(missing)}", hint="Run again with --keep and look at node.log.")
    states = [one.fate.state for one in shown]
    if states != ["done", *["rejected"] * (len(shown) - 1)]:
        raise DemoFailed(f"expected the first study done and the others rejected, got {', '.join(states)}")
