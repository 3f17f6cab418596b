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
from dicom_io.write.concepts import K1, K2, MFR, ML_PER_MIN_PER_G, PER_MIN, PRIVATE_SCHEME
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
NOTICE: Final = f"{RESEARCH_USE_ONLY}. Preliminary result of an algorithm, not verified by a physician."

MEASUREMENT_NAMES: Final = {
    "MTV": codes.DCM.MetabolicVolume,
    "TLG": codes.DCM.TotalLesionGlycolysis,
    "K1": K1,
    "k2": K2,
    "MBF": codes.DCM.AbsoluteRegionalBloodFlow,
    "MFR": MFR,
}
TERRITORIES: Final = {
    "LAD": codes.SCT.LeftAnteriorDescendingCoronaryArtery,
    "LCX": codes.SCT.CircumflexCoronaryArtery,
    "RCA": codes.SCT.RightCoronaryArtery,
    "global": None,
}
"""Regions that are myocardium of the left ventricle: what one coronary artery supplies (CID 3015), or all of it."""
UNIT_MEANINGS: Final = {
    "ml": "milliliter",
    "g": "gram",
    "mm": "millimeter",
    "s": "second",
    "%": "percent",
    "1": "no units",
    "Bq/ml": "Becquerels/milliliter",
    SUV_UNIT.value: SUV_UNIT.meaning,
    ML_PER_MIN_PER_G.value: ML_PER_MIN_PER_G.meaning,
    PER_MIN.value: PER_MIN.meaning,
}

Text = tuple[Code, str]
"""A concept name and what is to be said under it."""


def measurement_report(
    products: Products, source: LoadedSeries, seg: Dataset | None, identity: Identity, *, product: str = "sr"
) -> Dataset:
    """Measures of every lesion, of every region that measurements name, and of the whole image.

    "No lesion found." is said where there is neither lesion nor region.

    seg : what `segmentation` returned for the same products; each lesion refers to its segment
    product : "sr", or "sr_labelmap" of the same products, which is another object

    Raises
    ------
    ValueError
        A lesion has no segment: a fault of the engine.
    """
    segments = {} if seg is None else {s.TrackingUID: s for s in seg.SegmentSequence if "TrackingUID" in s}
    groups: list[sr.ContentSequence] = []
    for lesion in products.lesions:
        uid = tracking_uid(identity, lesion.label)
        if seg is None or uid not in segments:
            raise ValueError(f"lesion {lesion.label} has no voxel in the label map")
        groups.append(_lesion_group(lesion, seg, segments[uid], source, identity))
    groups += regional_groups(products.measurements, identity)
    texts: list[Text] = [
        (codes.DCM.Finding, _finding(products)),
        (MEASUREMENT_METHOD, products.method),
        (codes.DCM.SUVBodyWeightCalculationMethod, f"SUV reference: {source.suv_reference or 'none'}"),
        *((codes.DCM.Comment, f"Warning: {warning}") for warning in products.warnings),
        (codes.DCM.Comment, NOTICE),
    ]
    evidence = [*source.datasets, *([] if seg is None else [seg])]
    return _document(_content(groups, texts, identity), evidence, identity, "Report", product)


def _finding(products: Products) -> str:
    count, regions = len(products.lesions), len({m.region for m in products.measurements if m.region})
    if count:
        return f"{count} lesion{'s' if count > 1 else ''} found."
    return f"{regions} region{'s' if regions > 1 else ''} measured." if regions else "No lesion found."


def not_processed_report(
    code: str, reason: str, datasets: Sequence[Dataset], identity: Identity, *, hint: str = ""
) -> Dataset:
    """A report that says why there is no result: code, message and hint of a typed error.

    code : stable identifier of the reason ("no-weight"); reason : one sentence for people
    datasets : headers of the series that was not processed, at least one
    hint : what can be done about it
    """
    texts: list[Text] = [
        (codes.DCM.Finding, f"Not processed: {reason}"),
        (codes.DCM.Comment, f"Reason code: {code}"),
        *([(codes.DCM.Comment, f"What to do: {hint}")] if hint else []),
        (codes.DCM.Comment, NOTICE),
    ]
    return _document(_content([], texts, identity), datasets, identity, "Not processed", "sr")


def _document(content: Dataset, evidence: Sequence[Dataset], identity: Identity, title: str, product: str) -> Dataset:
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
            **arguments(identity, product, title, first),
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


def regional_groups(
    measurements: Iterable[Measurement], identity: Identity
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """TID 1501: a group per region in the order of their first mention, then one of what belongs to no region.

    A coronary territory has the myocardium of the left ventricle as its finding site, and the artery as its modifier.
    """
    by_region: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_region.setdefault(measurement.region, []).append(measurement)
    whole = by_region.pop("", [])
    groups = [_group(region, f"region {region}", found, identity) for region, found in by_region.items()]
    return groups + ([_group("Whole image", "image", whole, identity)] if whole else [])


def _group(
    name: str, kind: str, measurements: Iterable[Measurement], identity: Identity
) -> sr.MeasurementsAndQualitativeEvaluations:
    sites = None
    if name in TERRITORIES:
        site = sr.FindingSite(codes.SCT.LeftVentricleMyocardium, topographical_modifier=TERRITORIES[name])
        sites = [site]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=identity.uid(kind, "tracking"), identifier=long_string(name)),
        algorithm_id=_algorithm(identity),
        finding_sites=sites,
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
