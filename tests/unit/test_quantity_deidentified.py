"""De-identified copies of a series: the same SUV to 1e-6, or a refusal; never another SUV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicognito.anonymizer import Anonymizer
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_io import headers, quantity
from dicom_io.errors import QuantityRefused
from tests import make


@pytest.fixture(scope="module", params=["START", "ADMIN", "NONE"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp(request.param)
    examination = {"decay_correction": request.param, "beds": 2}
    return make.study(folder, pet_shape=(6, 8, 8), examination=examination).pet


def copy(files: list[Path], folder: Path, edit: Callable[[Dataset], None]) -> list[headers.Header]:
    """Headers of a copy in which every data set was edited."""
    copies = []
    for file in files:
        dataset = pydicom.dcmread(file)
        edit(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / file.name, enforce_file_format=True)
        copies.append(headers.read(folder / file.name).header)
    return copies


def factors(files: list[Path]) -> tuple[float, ...]:
    return quantity.suvbw([headers.read(file).header for file in files], UTC).factors


def elements_of(dataset: Dataset) -> Iterator[tuple[Dataset, pydicom.DataElement]]:
    for element in list(dataset):
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements_of(item)


def shift_dates(dataset: Dataset, days: int, *, only: str = "") -> None:
    """Move every DA and DT, or the one named, by whole days."""
    for _, element in elements_of(dataset):
        if element.VR in {"DA", "DT"} and element.value and only in {"", element.keyword}:
            text = str(element.value)
            day = date(int(text[:4]), int(text[4:6]), int(text[6:8])) + timedelta(days=days)
            element.value = f"{day:%Y%m%d}{text[8:]}"


def forget_who(dataset: Dataset) -> None:
    """Names go, UIDs become others."""
    for owner, element in elements_of(dataset):
        if element.VR == "UI" and element.keyword.endswith("InstanceUID"):
            element.value = generate_uid(entropy_srcs=[str(element.value)])
        elif element.VR == "PN" or element.keyword in {"PatientID", "PatientBirthDate", "StationName"}:
            del owner[element.tag]


@pytest.mark.parametrize("days", [-3650, -1, 1, 100, 20000])
def test_dates_shifted_together_keep_the_suv(original: list[Path], tmp_path: Path, days: int) -> None:
    def edit(dataset: Dataset) -> None:
        shift_dates(dataset, days)
        forget_who(dataset)

    found = quantity.suvbw(copy(original, tmp_path, edit), UTC)
    assert found.factors == pytest.approx(factors(original), rel=1e-6)
    assert found.warnings == ()


@pytest.mark.parametrize("days", [-365, -1, 1, 365])
def test_only_the_injection_shifted_is_refused(original: list[Path], tmp_path: Path, days: int) -> None:
    def edit(dataset: Dataset) -> None:
        shift_dates(dataset, days, only="RadiopharmaceuticalStartDateTime")

    edited = copy(original, tmp_path, edit)
    if edited[0]["DecayCorrection"] == "ADMIN":  # needs no time at all
        assert quantity.suvbw(edited, UTC).factors == factors(original)
        return
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(edited, UTC)
    assert caught.value.code == "injection-date"
    assert f"{abs(days)} day(s) too {'late' if days > 0 else 'early'}" in str(caught.value)


@pytest.mark.parametrize("days", [-365, -1, 1, 365])
def test_the_injection_left_where_it_was_is_refused(original: list[Path], tmp_path: Path, days: int) -> None:
    def edit(dataset: Dataset) -> None:
        shift_dates(dataset, days)
        shift_dates(dataset, -days, only="RadiopharmaceuticalStartDateTime")

    edited = copy(original, tmp_path, edit)
    if edited[0]["DecayCorrection"] == "ADMIN":
        assert quantity.suvbw(edited, UTC).factors == factors(original)
        return
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(edited, UTC)
    assert caught.value.code == "injection-date"


@pytest.mark.parametrize("days", [-700, 30])
def test_a_time_of_day_needs_no_date_of_the_injection(original: list[Path], tmp_path: Path, days: int) -> None:
    def edit(dataset: Dataset) -> None:
        shift_dates(dataset, days)
        del dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime

    found = quantity.suvbw(copy(original, tmp_path, edit), UTC)
    assert found.factors == pytest.approx(factors(original), rel=1e-6)


@pytest.mark.parametrize("seed", ["1", "2", "4", "5"])
def test_dicognito_with_a_date_and_time_of_the_injection(original: list[Path], tmp_path: Path, seed: str) -> None:
    """It moves every DA with its TM, and every DT, by the same number of hours; it never moves a TM that has no DA."""
    anonymizer = Anonymizer(seed=seed)

    def edit(dataset: Dataset) -> None:
        del dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime
        anonymizer.anonymize(dataset)

    edited = copy(original, tmp_path, edit)
    assert edited[0]["SeriesDate"] != headers.read(original[0]).header["SeriesDate"]
    found = quantity.suvbw(edited, UTC)
    assert found.factors == pytest.approx(factors(original), rel=1e-6)


@pytest.mark.parametrize("seed", ["1", "2", "4", "5"])
def test_dicognito_leaves_the_time_of_day_of_the_injection(original: list[Path], tmp_path: Path, seed: str) -> None:
    """Start Time then contradicts Start DateTime by the hours of the shift: refused, unless it is of days (seed 5)."""
    anonymizer = Anonymizer(seed=seed)
    edited = copy(original, tmp_path, anonymizer.anonymize)
    before, after = (pydicom.dcmread(file) for file in (original[0], tmp_path / original[0].name))
    (old, new) = (item.RadiopharmaceuticalInformationSequence[0] for item in (before, after))
    assert old.RadiopharmaceuticalStartTime == new.RadiopharmaceuticalStartTime
    same_clock = str(old.RadiopharmaceuticalStartDateTime)[8:] == str(new.RadiopharmaceuticalStartDateTime)[8:]
    if same_clock or before.DecayCorrection == "ADMIN":
        assert quantity.suvbw(edited, UTC).factors == pytest.approx(factors(original), rel=1e-6)
        return
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(edited, UTC)
    assert caught.value.code == "injection-time"


REMOVED_BY_THE_BASIC_PROFILE: dict[str, Any] = {
    "PatientWeight": None,
    "PatientSize": None,
    "PatientSex": "",
    "SeriesDate": None,
    "SeriesTime": None,
    "AcquisitionDate": None,
    "AcquisitionTime": None,
    "SeriesDescription": None,
}
"""PS3.15 table E.1-1: X takes the attribute away, Z leaves it empty."""


def basic_profile(dataset: Dataset) -> None:
    for keyword, value in REMOVED_BY_THE_BASIC_PROFILE.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    drug = dataset.RadiopharmaceuticalInformationSequence[0]
    drug.pop("RadiopharmaceuticalStartTime", None)
    drug.pop("RadiopharmaceuticalStartDateTime", None)
    forget_who(dataset)


def test_the_basic_profile_takes_the_weight_and_with_it_the_suv(original: list[Path], tmp_path: Path) -> None:
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(copy(original, tmp_path, basic_profile), UTC)
    assert caught.value.code == "no-weight"


def test_the_basic_profile_with_patient_characteristics_lacks_the_times(original: list[Path], tmp_path: Path) -> None:
    """The option that retains weight and sex gives back an SUV only where no time is needed."""

    def edit(dataset: Dataset) -> None:
        weight = dataset.PatientWeight
        basic_profile(dataset)
        dataset.PatientWeight = weight

    edited = copy(original, tmp_path, edit)
    if edited[0]["DecayCorrection"] == "ADMIN":
        assert quantity.suvbw(edited, UTC).factors == factors(original)
        return
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(edited, UTC)
    assert caught.value.code == "no-acquisition-time"


def test_a_series_time_set_to_midnight_is_not_believed(original: list[Path], tmp_path: Path) -> None:
    """Some tools write 000000 for every Series Time: it lies before the injection."""

    def edit(dataset: Dataset) -> None:
        dataset.SeriesTime = "000000"

    found = quantity.suvbw(copy(original, tmp_path, edit), UTC)
    assert found.factors == pytest.approx(factors(original), rel=1e-6)
    assert found.branch in {"bqml-start-back-computed", "bqml-admin", "bqml-none"}
