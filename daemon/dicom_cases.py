"""DICOM studies with a SEG or RTSTRUCT drawn on their PET → cases to learn from and to judge by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydicom import Dataset
from sqlalchemy import select

from daemon.offline import Candidate
from daemon.opening import glance_at_node
from daemon.terminal import read_settings
from db import schema, studies
from dicom_io import regions
from dicom_io.errors import UnreadableObject
from dicom_io.folder import File, collect, files_below, sandbox_for
from dicom_io.series import covers, understand
from dicom_io.volume import load
from engines.contract import Case, Quantity, Volume
from engines.errors import CaseRefused

Loader = Callable[[], Case]
LEAST_COVERED = 0.9
"""Share of the PET's length that its CT must reach over; for an examination a rule may ask for all of it."""
LOOKED_AT = 5
"""Files of a folder that are tried until one is DICOM."""


def of_folder(folder: Path, timezone: tzinfo) -> list[Loader]:
    """A loader for each study below a folder; one header of each folder of files says which study that is.

    A patient's studies are of one group, numbered in the order of their folders.
    """
    below = [list(files) for _, files in groupby(files_below([folder]), lambda file: file.path.parent)]
    found: dict[str, list[Path]] = defaultdict(list)
    patients: dict[str, str] = {}
    for files, header in zip(below, _first_headers(below), strict=True):
        if header is not None:
            study = str(header["StudyInstanceUID"])
            found[study] += [file.path for file in files]
            patients.setdefault(study, str(header.get("PatientID")))
    numbers = {patient: f"patient {n}" for n, patient in enumerate(dict.fromkeys(patients.values()), start=1)}
    return [partial(case_of, files, timezone, numbers[patients[study]]) for study, files in found.items()]


def of_store(config: Path) -> list[Loader]:
    """A loader for each study of a node that has a SEG or RTSTRUCT which was sent to it.

    Raises
    ------
    config.load.ConfigError, db.errors.DatabaseError
        As everything that looks at a node.
    """
    settings = read_settings(config)
    with glance_at_node(settings) as node, node.store.read() as session:
        received = schema.Series.origin == schema.Origin.RECEIVED
        drawn = select(schema.Series.study_id).where(schema.Series.modality.in_(regions.MODALITIES), received)
        rows = session.scalars(select(schema.Study).where(schema.Study.id.in_(drawn)).order_by(schema.Study.id))
        patients: dict[object, str] = {}
        loaders: list[Loader] = []
        for study in rows.all():
            patient = (study.patient_id, study.issuer) if study.patient_id else study.id
            group = patients.setdefault(patient, f"patient {len(patients) + 1}")
            instances = [
                instance
                for series in studies.series_of(session, study.id)
                if series.origin == schema.Origin.RECEIVED
                for instance in studies.current_instances(session, series.id)
            ]
            files = [node.folders.data / instance.path for instance in instances]
            loaders.append(partial(case_of, files, ZoneInfo(settings.timezone), group))
        return loaders


def case_of(files: Sequence[Path], timezone: tzinfo, group: str) -> Case:
    """PET [SUVbw], CT [HU] and tumours of one study; the truth is None where nobody drew anything.

    Raises
    ------
    CaseRefused
        mixed-studies, several-pets, no-pet, no-ct, several-truths.
    dicom_io.errors.DicomError
        A series or a region cannot be read.
    """
    with sandbox_for(len(files)) as sandbox:
        found = list(collect([File(path, named=True) for path in files], sandbox).series.values())
    if len({one.headers[0]["StudyInstanceUID"] for one in found}) > 1:
        text = f"{group}: expected one study, got several in one folder"
        raise CaseRefused(text, code="mixed-studies", hint="Put every study into a folder of its own.")
    series = [Candidate(understand(one.headers, {}, timezone), one.instances) for one in found]
    drawn = [
        regions.read_regions(path)
        for one in series
        if one.facts["modality"] in regions.MODALITIES and one.facts["produced_by"] is None
        for path in one.paths
    ]
    pet, truth = _pet_and_truth([one for one in series if _is_pet(one.facts)], drawn, group)
    ct = _ct([one for one in series if one.facts["modality"] == "CT"], pet.facts, group)
    source = load(pet.paths, Quantity.SUVBW, timezone)
    volumes: dict[str, Volume] = {"pet": source.static, "ct": load(ct.paths, Quantity.HU, timezone).static}
    return Case(volumes, None if truth is None else regions.tumours(truth, source), group)


def _is_pet(facts: Mapping[str, Any]) -> bool:
    """A still PET of a scanner that is not known to lack attenuation correction."""
    corrected = facts["attenuation_corrected"] is not False
    return facts["modality"] == "PT" and facts["kind"] == "static" and facts["produced_by"] is None and corrected


def _pet_and_truth(pets: Sequence[Candidate], drawn: Sequence[Dataset], group: str) -> tuple[Candidate, Dataset | None]:
    """The PET that somebody drew on, and what was drawn; the only PET where nobody drew on one."""
    referring = [(pet, one) for pet in pets for one in drawn if _uid(pet) in regions.drawn_on(one)]
    if len(referring) == 1:
        return referring[0]
    if len(referring) > 1:
        text = f"{group}: expected one SEG or RTSTRUCT drawn on a PET, got {len(referring)}"
        raise CaseRefused(text, code="several-truths", hint="Leave the one to learn from in the folder.")
    if len(pets) != 1:
        text = f"{group}: expected one attenuation-corrected static PET, got {len(pets)}"
        raise CaseRefused(text, code="several-pets" if pets else "no-pet")
    if len(drawn) > 1:
        text = f"{group}: expected one SEG or RTSTRUCT, got {len(drawn)}, none of which says that it is of the PET"
        raise CaseRefused(text, code="several-truths")
    return pets[0], drawn[0] if drawn else None


def _uid(series: Candidate) -> str:
    return str(series.instances[0].survey.header["SeriesInstanceUID"])


def _ct(found: Sequence[Candidate], pet: Mapping[str, Any], group: str) -> Candidate:
    """The CT that reaches over most of the PET; of several the one with the most slices."""
    reaching = [(covers(one.facts, pet).fraction or 0.0, len(one.instances), one) for one in found]
    best = max(reaching, key=lambda entry: entry[:2], default=None)
    if best is None or best[0] < LEAST_COVERED:
        reached = "none" if best is None else f"one that reaches over {best[0]:.0%}"
        text = f"{group}: expected a CT in the frame of reference of the PET that reaches over it, got {reached}"
        raise CaseRefused(text, code="no-ct")
    return best[2]


def _first_headers(folders: Sequence[Sequence[File]]) -> list[Mapping[str, Any] | None]:
    """Of each folder the header of its first file that is DICOM; None where none of the first files is."""
    found: list[Mapping[str, Any] | None] = [None] * len(folders)
    with sandbox_for(len(folders)) as sandbox:
        for turn in range(LOOKED_AT):
            open_yet = [n for n, header in enumerate(found) if header is None and len(folders[n]) > turn]
            answers = sandbox.survey_many(folders[n][turn].path for n in open_yet)
            for n, answer in zip(open_yet, answers, strict=True):
                found[n] = None if isinstance(answer, UnreadableObject) else answer.header
    return found
