"""Measurements → DICOM SR: TID 1500 Measurement Report as Comprehensive 3D SR (PS3.16 A; PS3.3 A.35.13)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from highdicom import sr
from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io.volume import LoadedSeries
from dicom_io.write.header import (
    MANUFACTURER,
    RESEARCH_USE_ONLY,
    Identity,
    Reference,
    algorithm_parameters,
    arguments,
    ascii_text,
    long_string,
    settle,
    without_patient,
)
from dicom_io.write.seg import algorithm_family, tracking_uid
from engines.contract import Lesion, Measurement, Products

QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
ENGLISH: Final = sr.CodedConcept("en-US", "RFC5646", "English (United States)")
MEASUREMENT_METHOD: Final = Code("370129005", "SCT", "Measurement Method")
SUV_UNIT: Final = codes.cid85.StandardizedUptakeValueBodyWeight
PRIVATE_SCHEME: Final = "99TRACERD"
NOTICE: Final = f"{RESEARCH_USE_ONLY}. Preliminary result of an algorithm, not verified by a physician."

MEASUREMENT_NAMES: Final = {
    "MTV": codes.DCM.MetabolicVolume,
    "TLG": codes.DCM.TotalLesionGlycolysis,
}
UNIT_MEANINGS: Final = {
    "ml": "milliliter",
    "g": "gram",
    "mm": "millimeter",
    "s": "second",
    "%": "percent",
    "1": "no units",
    "Bq/ml": "Becquerels/milliliter",
    SUV_UNIT.value: SUV_UNIT.meaning,
}

Text = tuple[Code, str]
"""A concept name and what is to be said under it."""


def measurement_report(products: Products, source: LoadedSeries, seg: Dataset | None, identity: Identity) -> Dataset:
    """Measures of every lesion and of the whole image; "No lesion found." where there is none.

    seg : what `segmentation` returned for the same products; each lesion refers to its segment

    Raises
    ------
    ValueError
        A lesion has no segment: a fault of the engine.
    """
    segments = {} if seg is None else {s.TrackingUID: s for s in seg.SegmentSequence}
    groups: list[sr.ContentSequence] = []
    for lesion in products.lesions:
        uid = tracking_uid(identity, lesion.label)
        if seg is None or uid not in segments:
            raise ValueError(f"lesion {lesion.label} has no voxel in the label map")
        groups.append(_lesion_group(lesion, seg, segments[uid], source, identity))
    if products.measurements:
        groups.append(_whole_image_group(products.measurements, identity))
    count = len(products.lesions)
    finding = "No lesion found." if not count else f"{count} lesion{'s' if count > 1 else ''} found."
    texts: list[Text] = [
        (codes.DCM.Finding, finding),
        (MEASUREMENT_METHOD, products.method),
        (codes.DCM.SUVBodyWeightCalculationMethod, f"SUV reference: {source.suv_reference or 'none'}"),
        *((codes.DCM.Comment, f"Warning: {warning}") for warning in products.warnings),
        (codes.DCM.Comment, NOTICE),
    ]
    evidence = [*source.datasets, *([] if seg is None else [seg])]
    return _document(_content(groups, texts, identity), evidence, identity, "Report")


def not_processed_report(code: str, reason: str, datasets: Sequence[Dataset], identity: Identity) -> Dataset:
    """A report that says why there is no result.

    code : stable identifier of the reason ("suv-no-weight"); reason : one sentence for people
    datasets : headers of the series that was not processed, at least one
    """
    texts: list[Text] = [
        (codes.DCM.Finding, f"Not processed: {reason}"),
        (codes.DCM.Comment, f"Reason code: {code}"),
        (codes.DCM.Comment, NOTICE),
    ]
    return _document(_content([], texts, identity), datasets, identity, "Not processed")


def _document(content: Dataset, evidence: Sequence[Dataset], identity: Identity, title: str) -> Dataset:
    """The report as an SR document; `evidence[0]` says whose study it is."""
    first = evidence[0]
    instances = {instance.SOPInstanceUID: instance for instance in evidence}  # frames of one image are one instance
    with config.disable_value_validation():
        dataset = sr.Comprehensive3DSR(
            evidence=[without_patient(instance) for instance in instances.values()],
            content=content,
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=[_predecessor(reference) for reference in identity.predecessors] or None,
            **arguments(identity, "sr", title, first),
        )
        settle(dataset, first, identity)
    return dataset


def _predecessor(reference: Reference) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = reference.study_instance_uid
    dataset.SeriesInstanceUID = reference.series_instance_uid
    dataset.SOPClassUID = reference.sop_class_uid
    dataset.SOPInstanceUID = reference.sop_instance_uid
    return dataset


def _content(groups: Sequence[sr.ContentSequence], texts: Iterable[Text], identity: Identity) -> Dataset:
    """Root of TID 1500. highdicom's MeasurementReport is not used: it knows no report without a measurement."""
    root = sr.ContainerContentItem(name=codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = sr.ContentSequence()
    root.ContentSequence.extend(sr.LanguageOfContentItemAndDescendants(ENGLISH))
    root.ContentSequence.extend(_observer(identity))
    root.ContentSequence.append(
        sr.CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=codes.cid100.PETUnspecifiedBodyRegion,
            relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    if groups:
        measurements = _container(codes.DCM.ImagingMeasurements)
        for group in groups:
            measurements.ContentSequence.extend(group)
        root.ContentSequence.append(measurements)
    evaluations = _container(QUALITATIVE_EVALUATIONS)
    for name, text in texts:
        evaluations.ContentSequence.append(
            sr.TextContentItem(name=name, value=ascii_text(text), relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    root.ContentSequence.append(evaluations)
    return root


def _container(name: Code) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name=name, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence()
    return container


def _observer(identity: Identity) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=identity.device_uid,
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=long_string(identity.engine),
        serial_number=long_string(identity.installation_id),
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _lesion_group(
    lesion: Lesion, seg: Dataset, segment: Dataset, source: LoadedSeries, identity: Identity
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411 of one lesion."""
    measures = [
        _measure(codes.DCM.Suvbw, lesion.suv_max, SUV_UNIT, derivation=codes.SCT.Maximum),
        _measure(codes.DCM.Suvbw, lesion.suv_mean, SUV_UNIT, derivation=codes.SCT.Mean),
        _measure(codes.SCT.Volume, lesion.volume_ml, _unit("ml")),
        _measure(codes.DCM.MetabolicVolume, lesion.volume_ml, _unit("ml")),
        _measure(codes.DCM.TotalLesionGlycolysis, lesion.tlg_g, _unit("g")),
    ]
    if lesion.suv_peak is not None:
        measures.append(_measure(codes.DCM.Suvbw, lesion.suv_peak, SUV_UNIT, derivation=codes.DCM.PeakValueWithinROI))
    if lesion.confidence is not None:
        measures.append(_measure(codes.DCM.CertaintyOfFinding, 100.0 * lesion.confidence, _unit("%")))
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=int(segment.SegmentNumber),
            source_series=sr.SourceSeriesForSegmentation(source.datasets[0].SeriesInstanceUID),
        ),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=codes.SCT.Lesion,
        algorithm_id=_algorithm(identity),
        measurements=measures,
    )


def _whole_image_group(
    measurements: Iterable[Measurement], identity: Identity
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: the numbers that belong to no single region."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=identity.uid("image", "tracking"), identifier="Whole image"),
        algorithm_id=_algorithm(identity),
        measurements=[_measure(_name(m.name), m.value, _unit(m.unit)) for m in measurements],
    )


def _measure(name: Code, value: float, unit: Code, *, derivation: Code | None = None) -> sr.Measurement:
    """TID 300: six significant digits for people in Numeric Value, the exact number in Floating Point Value."""
    measurement = sr.Measurement(name=name, value=float(value), unit=unit, derivation=derivation)
    measurement[0].MeasuredValueSequence[0].NumericValue = f"{value:.6g}"
    return measurement


def _name(name: str) -> Code:
    """The standard code of a measurement, else a private one whose value (SH) tells long names apart by their hash."""
    known: Code | None = MEASUREMENT_NAMES.get(name)
    if known is not None:
        return known
    meaning = long_string(name)
    value = meaning if len(meaning) <= 16 else f"{meaning[:9].strip()}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return Code(value, PRIVATE_SCHEME, meaning)


def _unit(ucum: str) -> Code:
    return Code(ucum, "UCUM", UNIT_MEANINGS.get(ucum, ucum))


def _algorithm(identity: Identity) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=long_string(identity.engine),
        version=long_string(identity.engine_version),
        parameters=[",".join(f"{name}={value}" for name, value in algorithm_parameters(identity).items())],
        family=algorithm_family(identity),
        manufacturer=MANUFACTURER,
    )
