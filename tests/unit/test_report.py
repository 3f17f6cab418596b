"""Reports: every number under its code and unit, tied to the segment it was measured in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_io.errors import QuantityRefused
from dicom_io.volume import LoadedSeries
from dicom_io.write import header, report, seg
from engines.contract import Measurement, Products
from tests import findings, make
from tests.findings import IDENTITY


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> LoadedSeries:
    return findings.series(make.study(tmp_path_factory.mktemp("pet"), pet_shape=(6, 16, 14)).pet)


def written(source: LoadedSeries, products: Products) -> tuple[Dataset | None, Dataset]:
    segmentation = seg.segmentation(products, source, IDENTITY)
    document = report.measurement_report(products, source, segmentation, IDENTITY)
    return segmentation, findings.reread(header.encode(document))


def content(document: Dataset) -> sr.MeasurementReport:
    """The report as highdicom reads it."""
    measurement_report = sr.Comprehensive3DSR.from_dataset(document).content
    assert isinstance(measurement_report, sr.MeasurementReport)
    return measurement_report


def texts(document: Dataset) -> list[tuple[str, str]]:
    """(name, text) of the Qualitative Evaluations at the root."""
    containers = [item for item in document.ContentSequence if item.ValueType == "CONTAINER"]
    (evaluations,) = [c for c in containers if c.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    return [(item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue) for item in evaluations.ContentSequence]


def numbers(measurements: list[sr.Measurement]) -> dict[tuple[str, str | None], tuple[float, str]]:
    """(concept, derivation) → (value, unit), all as code values."""
    return {(m.name.value, m.derivation.value if m.derivation else None): (m.value, m.unit.value) for m in measurements}


def test_measures_of_a_lesion(source: LoadedSeries) -> None:
    _, document = written(source, findings.products(source))
    first, second = content(document).get_volumetric_roi_measurement_groups()
    # codes of PS3.16: 126401 SUVbw, 126032 Metabolic Volume, 126033 TLG, 111012 Certainty; SCT 118565006 Volume
    expected = {
        ("126401", "56851009"): (float(np.float32(12.3456789)), "g/ml{SUVbw}"),
        ("126401", "373098007"): (6.5, "g/ml{SUVbw}"),
        ("118565006", None): (8.125, "ml"),
        ("126032", None): (8.125, "ml"),
        ("126033", None): (52.8125, "g"),
    }
    assert numbers(second.get_measurements()) == expected
    assert numbers(first.get_measurements()) == expected | {
        ("126401", "126031"): (10.25, "g/ml{SUVbw}"),
        ("111012", None): (75.0, "%"),
    }
    assert first.finding_type == codes.SCT.Lesion
    assert first.finding_category == codes.SCT.MorphologicallyAbnormalStructure


def test_numbers_are_short_for_people_and_exact_for_programs(source: LoadedSeries) -> None:
    found = findings.products(source)
    document = report.measurement_report(found, source, seg.segmentation(found, source, IDENTITY), IDENTITY)
    values = [
        e.value for e in findings.reread(header.encode(document)).iterall() if e.keyword == "MeasuredValueSequence"
    ]
    suv_max = values[0][0]
    assert str(suv_max.NumericValue) == "12.3457"
    assert suv_max.FloatingPointValue == float(np.float32(12.3456789))


def test_every_lesion_refers_to_its_segment(source: LoadedSeries) -> None:
    # the lesions are listed in the reverse order of their labels
    found = findings.products(source)
    segmentation, document = written(source, replace(found, lesions=found.lesions[::-1]))
    assert segmentation is not None
    groups = content(document).get_volumetric_roi_measurement_groups()
    for group, number in zip(groups, (2, 1), strict=True):
        (item,) = [i for i in group[0].ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121191"]
        (referenced,) = item.ReferencedSOPSequence
        assert referenced.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert referenced.ReferencedSegmentNumber == number
        segment = segmentation.SegmentSequence[number - 1]
        assert (group.tracking_uid, group.tracking_identifier) == (segment.TrackingUID, segment.TrackingID)
        (origin,) = [i for i in group[0].ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121232"]
        assert str(origin.UID) == source.datasets[0].SeriesInstanceUID


def test_totals_of_the_image(source: LoadedSeries) -> None:
    _, document = written(source, findings.products(source))
    (group,) = content(document).get_image_measurement_groups()
    assert group.tracking_identifier == "Whole image"
    assert numbers(group.get_measurements()) == {
        ("126032", None): (16.25, "ml"),
        ("126033", None): (105.5, "g"),
        ("threshold", None): (4.0, "g/ml{SUVbw}"),
    }


def test_what_is_said_in_words(source: LoadedSeries) -> None:
    found = findings.products(source)
    assert texts(written(source, found)[1]) == [
        ("Finding", "2 lesions found."),
        ("Measurement Method", "SUV >= 4 g/ml"),
        ("SUV body weight calculation method", f"SUV reference: {source.suv_reference}"),
        ("Comment", "Warning: Physiological uptake is not excluded."),
        ("Comment", "RESEARCH USE ONLY. Preliminary result of an algorithm, not verified by a physician."),
    ]
    one = replace(found, lesions=found.lesions[:1])
    assert texts(written(source, one)[1])[0] == ("Finding", "1 lesion found.")


def test_no_lesion_found(source: LoadedSeries) -> None:
    segmentation, document = written(source, findings.nothing())
    assert segmentation is None
    assert texts(document)[0] == ("Finding", "No lesion found.")
    assert content(document).get_volumetric_roi_measurement_groups() == []
    (totals,) = content(document).get_image_measurement_groups()
    assert numbers(totals.get_measurements()) == {("126032", None): (0.0, "ml"), ("126033", None): (0.0, "g")}


def test_no_number_at_all(source: LoadedSeries) -> None:
    _, document = written(source, findings.nothing(measurements=()))
    assert texts(document)[0] == ("Finding", "No lesion found.")
    assert content(document).get_image_measurement_groups() == []


def test_unverified_and_preliminary(source: LoadedSeries) -> None:
    document = written(source, findings.products(source))[1]
    assert document.VerificationFlag == "UNVERIFIED"
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert document.CompletionFlag == "COMPLETE"
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_evidence_is_the_source_and_the_segmentation(source: LoadedSeries) -> None:
    segmentation, document = written(source, findings.products(source))
    assert segmentation is not None
    evidence = {
        (study, series, instance)
        for study, series, instance, _ in sr.Comprehensive3DSR.from_dataset(document).get_evidence()
    }
    assert evidence == {
        (d.StudyInstanceUID, d.SeriesInstanceUID, d.SOPInstanceUID) for d in (*source.datasets, segmentation)
    }


def test_observer_is_this_node(source: LoadedSeries) -> None:
    (observer,) = content(written(source, findings.products(source))[1]).get_observer_contexts()
    attributes = observer.observer_identifying_attributes
    assert isinstance(attributes, sr.DeviceObserverIdentifyingAttributes)
    assert (attributes.uid, attributes.name, attributes.serial_number) == (IDENTITY.device_uid, "tracerd", "node-7")
    assert replace(IDENTITY, job_key="00" * 32).device_uid == IDENTITY.device_uid


def test_lesion_without_a_segment_is_a_fault(source: LoadedSeries) -> None:
    found = findings.products(source)
    stray = replace(found, lesions=(*found.lesions, replace(found.lesions[0], label=4)))
    segmentation = seg.segmentation(stray, source, IDENTITY)
    with pytest.raises(ValueError, match="lesion 4"):
        report.measurement_report(stray, source, segmentation, IDENTITY)


def test_unknown_measurement_gets_a_private_code(source: LoadedSeries) -> None:
    odd = [Measurement(f"Liver mean of the {side} lobe × 1.5", 2.25, "{odd}/ml") for side in ("left", "right")]
    _, document = written(source, findings.nothing(measurements=(*odd, Measurement("liver SD", 0.5, "1"))))
    (group,) = content(document).get_image_measurement_groups()
    names = [measurement.name for measurement in group.get_measurements()]
    assert [name.meaning for name in names] == [
        "Liver mean of the left lobe x 1.5",
        "Liver mean of the right lobe x 1.5",
        "liver SD",
    ]
    # a code value has at most 16 characters (SH) and still differs where the names do
    assert {name.scheme_designator for name in names} == {"99TRACERD"}
    assert names[2].value == "liver SD"
    assert len({name.value for name in names}) == 3
    assert all(len(name.value) <= 16 for name in names)
    assert group.get_measurements()[0].unit.value == "{odd}/ml"


def test_study_that_was_not_processed(source: LoadedSeries, tmp_path: Path) -> None:
    document = report.not_processed_report("suv-no-weight", "SUV undefined: no weight", source.datasets, IDENTITY)
    read = findings.reread(header.encode(document))
    assert texts(read)[:2] == [
        ("Finding", "Not processed: SUV undefined: no weight"),
        ("Comment", "Reason code: suv-no-weight"),
    ]
    assert read.SeriesDescription == "Not processed threshold_segmentation RESEARCH USE ONLY"
    assert read.StudyInstanceUID == source.datasets[0].StudyInstanceUID
    assert content(read).get_image_measurement_groups() == []


def test_what_to_do_is_said_where_it_is_known(source: LoadedSeries) -> None:
    error = QuantityRefused("Patient's Weight (0010,1030): expected a number, got none", code="no-weight")
    document = report.not_processed_report(error.code, str(error), source.datasets, IDENTITY, hint=error.hint)
    assert texts(findings.reread(header.encode(document)))[1:3] == [
        ("Comment", "Reason code: no-weight"),
        ("Comment", f"What to do: {error.hint}"),
    ]


def perfusion(regions: tuple[str, ...]) -> list[Measurement]:
    """K1, MBF and MFR, another number for each."""
    measures = (("K1", "ml/min/g"), ("MBF", "ml/min/g"), ("MFR", "1"), ("k2", "/min"))
    return [
        Measurement(name, 1.0 + 0.25 * k + 0.03125 * n, unit, region=region)
        for k, region in enumerate(regions)
        for n, (name, unit) in enumerate(measures)
    ]


def test_every_territory_has_a_group_of_its_own(source: LoadedSeries) -> None:
    regions = ("LAD", "LCX", "RCA", "global")
    _, document = written(source, findings.nothing(measurements=(*perfusion(regions), Measurement("MTV", 2.0, "ml"))))
    groups = content(document).get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [*regions, "Whole image"]
    assert len({group.tracking_uid for group in groups}) == 5
    assert texts(document)[0] == ("Finding", "4 regions measured.")
    for k, group in enumerate(groups[:4]):
        assert numbers(group.get_measurements()) == {
            ("K1", None): (1.0 + 0.25 * k, "ml/min/g"),
            ("126390", None): (1.03125 + 0.25 * k, "ml/min/g"),
            ("MFR", None): (1.0625 + 0.25 * k, "1"),
            ("k2", None): (1.09375 + 0.25 * k, "/min"),
        }
        (site,) = group.finding_sites
        assert site.value.value == "49848007"
        modifier = site.topographical_modifier
        assert (modifier and modifier.value) == ("59438005", "57396003", "13647002", None)[k]


def test_a_region_of_another_name_has_no_site(source: LoadedSeries) -> None:
    _, document = written(source, findings.nothing(measurements=(Measurement("MBF", 1.0, "ml/min/g", region="scar"),)))
    (group,) = content(document).get_image_measurement_groups()
    assert (group.tracking_identifier, group.finding_sites) == ("scar", [])
    assert texts(document)[0] == ("Finding", "1 region measured.")


def test_headers_without_geometry_are_enough_to_say_why_not(source: LoadedSeries) -> None:
    bare: list[Any] = []
    for dataset in source.datasets[:2]:
        header_only = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
            header_only[keyword] = dataset[keyword]
        bare.append(header_only)
    read = findings.reread(header.encode(report.not_processed_report("geometry", "no positions", bare, IDENTITY)))
    assert read.PatientID == source.datasets[0].PatientID
    assert len(sr.Comprehensive3DSR.from_dataset(read).get_evidence()) == 2


def test_same_reader_same_numbers_for_many_lesions(source: LoadedSeries) -> None:
    labels = np.zeros(source.volume.array.shape, np.uint16)
    labels.flat[: 2 * 60 : 2] = np.arange(1, 61)
    segmentation, document = written(source, findings.products(source, labels))
    assert segmentation is not None
    groups = content(document).get_volumetric_roi_measurement_groups()
    assert [group.tracking_uid for group in groups] == [s.TrackingUID for s in segmentation.SegmentSequence]
    assert len({group.tracking_uid for group in groups}) == 60
