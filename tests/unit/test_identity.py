"""Same job, same bytes; other job, other UIDs; and what every product says about itself."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_io.write import header, report, seg
from dicom_io.write.header import Identity, Reference
from tests import findings, make
from tests.findings import IDENTITY


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return findings.series(make.study(tmp_path_factory.mktemp("pet"), pet_shape=(6, 16, 14)).pet)


def written(source: Any, identity: Identity = IDENTITY) -> list[Dataset]:
    """A segmentation, its report, and a report of a study that was not processed, as a reader gets them."""
    found = findings.products(source)
    segmentation = seg.segmentation(found, source, identity)
    assert segmentation is not None
    documents = [
        segmentation,
        report.measurement_report(found, source, segmentation, identity),
        report.not_processed_report("suv-no-weight", "SUV undefined: no weight", source.datasets, identity),
    ]
    return [findings.reread(header.encode(dataset)) for dataset in documents]


def uids(dataset: Dataset) -> set[str]:
    return {str(element.value) for element in dataset.iterall() if element.VR == "UI"}


def test_uid_is_the_hash_in_the_uuid_arc() -> None:
    # PS3.5 B.2: 2.25.<128-bit integer>
    digest = hashlib.sha256(f"{'5f' * 32}|seg|instance|0".encode()).hexdigest()
    assert IDENTITY.uid("seg", "instance", 0) == f"2.25.{int(digest[:32], 16)}"
    assert len({IDENTITY.uid(kind, profile, n) for kind in "ab" for profile in "cd" for n in range(9)}) == 2 * 2 * 9
    assert all(len(IDENTITY.uid("region", "tracking", n)) <= 64 for n in range(100))


def test_naive_creation_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        replace(IDENTITY, created=datetime(2026, 7, 1))


def test_two_builds_are_the_same_bytes(source: Any) -> None:
    found = findings.products(source)
    builds = []
    for _ in range(2):
        segmentation = seg.segmentation(found, source, IDENTITY)
        assert segmentation is not None
        builds.append(
            [
                header.encode(segmentation),
                header.encode(report.measurement_report(found, source, segmentation, IDENTITY)),
                header.encode(report.not_processed_report("code", "reason", source.datasets, IDENTITY)),
            ]
        )
    assert builds[0] == builds[1]


def test_encoding_does_not_change_the_data_set(source: Any) -> None:
    segmentation = seg.segmentation(findings.products(source), source, IDENTITY)
    assert segmentation is not None
    assert header.encode(segmentation) == header.encode(segmentation)


def test_another_job_shares_no_uid_but_the_sources(source: Any) -> None:
    theirs = {str(element.value) for dataset in source.datasets for element in dataset if element.VR == "UI"}
    standard = re.compile(r"1\.2\.840\.10008\.")
    for one, other in zip(written(source), written(source, replace(IDENTITY, job_key="60" * 32, rerun=1)), strict=True):
        shared = {uid for uid in uids(one) & uids(other) if not standard.match(uid)}
        assert shared - theirs <= {IDENTITY.device_uid}


def test_part_10(source: Any) -> None:
    segmentation = seg.segmentation(findings.products(source), source, IDENTITY)
    assert segmentation is not None
    encoded = header.encode(segmentation)
    assert encoded[:132] == bytes(128) + b"DICM"
    meta = findings.reread(encoded).file_meta
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.MediaStorageSOPInstanceUID == segmentation.SOPInstanceUID == IDENTITY.uid("seg", "instance")
    assert meta.ImplementationVersionName == "TRACERD"


def test_every_time_is_the_jobs(source: Any) -> None:
    """22:30:15.25 UTC is the next day in Berlin; DT values carry the offset, DA and TM are the site's clock."""
    for dataset in written(source):
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260702", "003015.250000")
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260702", "003015.250000")
        assert (dataset.InstanceCreationDate, dataset.InstanceCreationTime) == ("20260702", "003015.250000")
        assert "TimezoneOffsetFromUTC" not in dataset
        stamps = [e.value for e in dataset.iterall() if e.VR == "DT"]
        assert stamps
        assert set(stamps) == {"20260702003015.250000+0200"}
        clocks = {e.keyword for e in dataset.iterall() if e.VR in {"DA", "TM"} and "20260702" not in str(e.value)}
        assert clocks <= {
            "StudyDate", "StudyTime", "PatientBirthDate", "ContentTime", "SeriesTime", "InstanceCreationTime"
        }  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "date", "time"), [("-0930", "20260701", "130015.250000"), ("+1300", "20260702", "113015.250000")]
)
def test_offset_of_the_source_is_kept_and_governs(tmp_path: Path, offset: str, date: str, time: str) -> None:
    """22:30 UTC is 13:00 at -09:30 and 11:30 of the next day at +13:00."""
    source = findings.series(
        make.study(tmp_path, pet_shape=(6, 16, 14), edit=lambda d: setattr(d, "TimezoneOffsetFromUTC", offset)).pet
    )
    for dataset in written(source):
        assert dataset.TimezoneOffsetFromUTC == offset
        assert (dataset.ContentDate, dataset.ContentTime) == (date, time)


def test_malformed_offset_is_copied_and_not_believed(tmp_path: Path) -> None:
    def spoil(dataset: Dataset) -> None:
        with pydicom.config.disable_value_validation():
            dataset.TimezoneOffsetFromUTC = "CEST"

    source = findings.series(make.study(tmp_path, pet_shape=(6, 16, 14), edit=spoil).pet)
    for dataset in written(source):
        assert dataset.TimezoneOffsetFromUTC == "CEST"
        assert dataset.ContentTime == "003015.250000"


def test_what_every_product_says_about_itself(source: Any) -> None:
    identity = replace(IDENTITY, engine="fdg_segmentation", weights_sha256="ab" * 32)
    for dataset in written(source, identity):
        assert dataset.ContentQualification == "RESEARCH"
        assert "RESEARCH USE ONLY" in dataset.SeriesDescription
        assert dataset.Manufacturer == "tracerd"
        assert dataset.SoftwareVersions == ["tracerd 0.1.0", "fdg_segmentation 1.0.0"]
        assert dataset.DeviceSerialNumber == "node-7"
        # 9000 + 10 * (117 mod 100) + kind
        assert dataset.SeriesNumber == {"SEG": 9171, "SR": 9172}[dataset.Modality]
        equipment = {item.Manufacturer: item for item in dataset.ContributingEquipmentSequence}
        ours = equipment["tracerd"]
        assert ours.ContributionDescription == f"RESEARCH USE ONLY. Job 117, weights sha256 {'ab' * 32}"
        assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert equipment["SIMULATED"].PurposeOfReferenceCodeSequence[0].CodeValue == "109101"


def test_algorithm_identification(source: Any) -> None:
    learned = written(source, replace(IDENTITY, weights_sha256="ab" * 32))[0]
    classical = written(source)[0]
    for dataset, family, weights in ((learned, "123110", "ab" * 32), (classical, "123105", "none")):
        item = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert item.AlgorithmFamilyCodeSequence[0].CodeValue == family
        assert (item.AlgorithmName, item.AlgorithmVersion) == ("threshold_segmentation", "1.0.0")
        assert item.AlgorithmParameters == (
            f"method=fixed,threshold_suv=4.0,size_ml=[0.5;null],weights_sha256={weights},tracerd=0.1.0,job=117"
        )


@pytest.mark.parametrize(
    ("engine", "change", "expected"),
    [
        ("fdg_segmentation", {}, "Lesions fdg_segmentation RESEARCH USE ONLY"),
        ("fdg_segmentation", {"rerun": 1}, "Lesions fdg_segmentation RESEARCH USE ONLY (2)"),
        ("fdg_segmentation", {"rerun": 11}, "Lesions fdg_segmentation RESEARCH USE ONLY (12)"),
        # 64 - len(" RESEARCH USE ONLY (2)") = 42 characters are left
        ("e" * 80, {"rerun": 1}, "Lesions " + "e" * 34 + " RESEARCH USE ONLY (2)"),
    ],
)
def test_series_description(engine: str, change: dict[str, Any], expected: str) -> None:
    description = header.series_description(replace(IDENTITY, engine=engine, **change), "Lesions")
    assert description == expected
    assert len(description) <= 64


def test_successor_names_its_predecessor(source: Any) -> None:
    report_before = Reference("1.2.3", "1.2.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.5")
    seg_before = Reference("1.2.3", "1.2.6", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.7")
    segmentation, document, _ = written(source, replace(IDENTITY, supersedes=(seg_before, report_before)))
    assert segmentation.SeriesDescription.endswith("RESEARCH USE ONLY (2)")
    assert document.SeriesDescription.endswith("RESEARCH USE ONLY (2)")
    (study,) = document.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3", "1.2.4")
    assert (instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID) == (
        "1.2.840.10008.5.1.4.1.1.88.34",
        "1.2.5",
    )
    assert "PredecessorDocumentsSequence" not in written(source)[1]


IRREGULAR = {
    "PatientID": "ID with  two spaces",
    "PatientSex": "m",
    "PatientBirthDate": "1960-01-01",
    "StudyID": "EIGHTEEN_CHARACTERS"[:18],
    "AccessionNumber": "12345678901234567890",
    "StudyTime": "9:25",
    "IssuerOfPatientID": "CLINIC",
    "PatientAge": "66",
    "AdditionalPatientHistory": "line one\r\nline two",
    "ReferringPhysicianName": "A^B^C^D^E^F",
}


def test_patient_and_study_are_copied_verbatim_however_irregular(tmp_path: Path) -> None:
    def spoil(dataset: Dataset) -> None:
        with pydicom.config.disable_value_validation():
            for keyword, value in IRREGULAR.items():
                setattr(dataset, keyword, value)

    source = findings.series(make.study(tmp_path, pet_shape=(6, 16, 14), edit=spoil).pet)
    for dataset in written(source):
        assert {keyword: str(dataset[keyword].value) for keyword in IRREGULAR} == IRREGULAR
        assert dataset.StudyInstanceUID == source.datasets[0].StudyInstanceUID
        assert dataset.PatientWeight == source.datasets[0].PatientWeight


def test_absent_type_2_attributes_become_empty(tmp_path: Path) -> None:
    absent = ["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"]
    absent += ["StudyDate", "StudyTime", "ReferringPhysicianName", "SpecificCharacterSet", "Manufacturer"]
    source = findings.series(make.study(tmp_path, pet_shape=(6, 16, 14), omit=absent).pet)
    for dataset in written(source):
        assert [dataset[keyword].value or "" for keyword in absent[:9]] == [""] * 9
        assert {item.Manufacturer for item in dataset.ContributingEquipmentSequence} == {
            "tracerd",
            "Highdicom open-source contributors",
        }


NAMES = {
    # character set → value bytes of Patient's Name (PS3.5 annexes H to K) and of Study Description
    "ISO_IR 100": (b"M\xfcller^J\xf6rg ", b"Ganzk\xf6rper"),
    "ISO_IR 192": ("Müller^Jörg=山田^太郎".encode(), "全身".encode()),
    "\\ISO 2022 IR 87": (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        b"\x1b$BA4?H\x1b(B",
    ),
    None: (b"M\xfcller^J\xf6rg ", b"Ganzk\xf6rper"),
}


@pytest.mark.parametrize("character_set", NAMES)
def test_names_keep_their_bytes_in_every_character_set(tmp_path: Path, character_set: str | None) -> None:
    name, description = NAMES[character_set]
    name, description = (value + b" " * (len(value) % 2) for value in (name, description))
    marks = {b"NAME--" + b"-" * (len(name) - 6): name, b"TEXT--" + b"-" * (len(description) - 6): description}

    study = make.study(tmp_path, pet_shape=(6, 16, 14))
    for path in study.pet:
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = character_set.split("\\") if character_set else None
        dataset.PatientName, dataset.StudyDescription = (mark.decode() for mark in marks)
        dataset.save_as(path, enforce_file_format=True)
        content = path.read_bytes()
        for mark, value in marks.items():
            assert content.count(mark) == 1
            content = content.replace(mark, value)
        path.write_bytes(content)
    source = findings.series(study.pet)
    found = findings.products(source)
    segmentation = seg.segmentation(found, source, IDENTITY)
    document = report.measurement_report(found, source, segmentation, IDENTITY)
    assert segmentation is not None
    for product in (segmentation, document):
        encoded = header.encode(product)
        assert name in encoded
        assert description in encoded
        assert findings.reread(encoded).get("SpecificCharacterSet", "") == source.datasets[0].get(
            "SpecificCharacterSet", ""
        )


def test_own_texts_fit_every_character_set(tmp_path: Path) -> None:
    assert header.ascii_text("SUV ≥ 41 % – µ × ± → “x” é\n\x1b[31m") == 'SUV >= 41 % - u x +/- -> "x" e\r\n [31m'
    assert header.long_string(" a\\b\n c " + "x" * 80) == "a/b c " + "x" * 58


def test_created_in_another_zone_is_the_same_instant(source: Any) -> None:
    same = IDENTITY.created.astimezone(timezone(timedelta(hours=9)))
    assert same == IDENTITY.created
    assert written(source) == written(source, replace(IDENTITY, created=same))
