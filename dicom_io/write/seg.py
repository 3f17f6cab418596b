"""Regions → DICOM Segmentation (PS3.3 A.51), one segment per label, on the grid of the source PET."""

from __future__ import annotations

import colorsys
from typing import Final

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io.volume import LoadedSeries
from dicom_io.write.header import (
    FORMS,
    MANUFACTURER,
    RESEARCH_USE_ONLY,
    Identity,
    algorithm_parameters,
    arguments,
    long_string,
    settle,
)
from dicom_io.write.sources import check_grid, for_highdicom, pixel_measures, refer, slices
from engines.contract import LabelMap, Products

TISSUE: Final = Code("85756007", "SCT", "Tissue")
LESION: Final = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion)
OTHER: Final = (TISSUE, TISSUE)
ANATOMY: Final = {
    name: (codes.SCT.AnatomicalStructure, kind)
    for name, kind in {
        "liver": codes.SCT.Liver,
        "spleen": codes.SCT.Spleen,
        "kidney": codes.SCT.Kidney,
        "brain": codes.SCT.Brain,
        "heart": codes.SCT.Heart,
        "myocardium": codes.SCT.LeftVentricleMyocardium,
        "lung": codes.SCT.Lung,
        "bladder": codes.SCT.Bladder,
        "aorta": codes.SCT.Aorta,
    }.items()
}
"""Property category and type of regions that are no lesion, by their name (PS3.16 CID 7150, 7151)."""


def segmentation(
    products: Products, source: LoadedSeries, identity: Identity, *, labelmap: bool = False
) -> Dataset | None:
    """The regions as one Segmentation instance in a series of its own; None where nothing was found.

    Segments are numbered 1…n in the order of their labels; frames without any pixel of a segment are left out.
    `source` is the series whose grid the label map is on, single-frame or multi-frame; of a series over time the frames
    refer to the slices of the first time frame, and the object as a whole to all images.

    labelmap : Label Map Segmentation (Sup 243), one frame per slice whose values are segment numbers, in RLE
        (dcmqi takes JPEG-LS for lossy); else Segmentation of type BINARY, one frame per slice and segment,
        uncompressed, which every viewer of SEG reads

    Raises
    ------
    ValueError
        The label map is not on the grid of the source: a fault of the engine.
    """
    label_map = products.label_map
    labels = present_labels(label_map)
    if label_map is None or not labels:
        return None
    check_grid(label_map, source)
    first, images = source.datasets[0], slices(source)
    kind = "labelmap" if labelmap else "seg"
    occupied = np.flatnonzero(label_map.array.any(axis=(1, 2)))  # highdicom spends its time on every slice it is given
    types = hd.seg.SegmentationTypeValues
    with config.disable_value_validation():
        dataset = hd.seg.Segmentation(
            source_images=for_highdicom(images[z] for z in occupied),
            pixel_array=_numbered(label_map.array[occupied], labels),
            segmentation_type=types.LABELMAP if labelmap else types.BINARY,
            segment_descriptions=_descriptions(products, label_map, labels, identity),
            pixel_measures=pixel_measures(source),
            omit_empty_frames=True,
            transfer_syntax_uid=FORMS[kind].transfer_syntax_uid,
            content_label="LESIONS" if products.lesions else "REGIONS",
            content_description=RESEARCH_USE_ONLY,
            **arguments(identity, kind, "Lesions" if products.lesions else "Regions", first),
        )
        dataset.ContentCreatorName = None  # type 2: a program has no person's name
        # highdicom puts the distance of the slices that it was given there
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = pixel_measures(source)
        refer(dataset, source)
        settle(dataset, first, identity)
    return dataset


def present_labels(label_map: LabelMap | None) -> list[int]:
    """The labels that have a voxel, ascending, without background; none of no label map."""
    return [] if label_map is None else [int(label) for label in np.unique(label_map.array[label_map.array > 0])]


def tracking_uid(identity: Identity, label: int) -> str:
    """Tracking UID (0062,0021) of a region: the same in the Segmentation and in the report."""
    return identity.uid("region", "tracking", label)


def region_name(label_map: LabelMap, label: int) -> str:
    """The name shown to people, also the Tracking ID (0062,0020)."""
    return long_string(label_map.names.get(label) or f"Region {label}")


def _numbered(array: NDArray[np.uint16], labels: list[int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Labels → consecutive segment numbers 1…n, in the smallest type: comparing bytes is what writing a SEG costs."""
    lookup: NDArray[np.uint8] | NDArray[np.uint16] = np.zeros(max(labels) + 1, np.uint16)
    if len(labels) < 256:
        lookup = lookup.astype(np.uint8)
    lookup[labels] = np.arange(1, len(labels) + 1)
    return lookup[array]


def _descriptions(
    products: Products, label_map: LabelMap, labels: list[int], identity: Identity
) -> list[hd.seg.SegmentDescription]:
    lesions = {lesion.label for lesion in products.lesions}
    algorithm = hd.AlgorithmIdentificationSequence(
        name=long_string(identity.engine),
        family=algorithm_family(identity),
        version=long_string(identity.engine_version),
        source=MANUFACTURER,
        parameters=algorithm_parameters(identity),
    )
    descriptions = []
    for number, label in enumerate(labels, start=1):
        category, kind = LESION if label in lesions else ANATOMY.get(region_name(label_map, label).lower(), OTHER)
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=region_name(label_map, label),
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=tracking_uid(identity, label),
            tracking_id=region_name(label_map, label),
        )
        description.SegmentDescription = RESEARCH_USE_ONLY
        shown = hd.color.CIELabColor.from_rgb(*(round(255 * value) for value in colour(number)))
        description.RecommendedDisplayCIELabValue = list(shown.value)
        descriptions.append(description)
    return descriptions


def algorithm_family(identity: Identity) -> Code:
    """CID 7162: artificial intelligence where there are weights, else the nearest to thresholds there is."""
    learned: Code = codes.cid7162.ArtificialIntelligence
    classical: Code = codes.cid7162.HistogramAnalysis
    return learned if identity.weights_sha256 else classical


def colour(number: int) -> tuple[float, float, float]:
    """Red, green and blue (0 … 1) of a segment: hues a golden section apart, so that neighbours differ."""
    return colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.75, 0.95)
