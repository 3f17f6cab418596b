"""Regions → DICOM Segmentation (PS3.3 A.51): BINARY, one segment per label, on the grid of the source PET."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Final

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage, PositronEmissionTomographyImageStorage

from dicom_io import geometry
from dicom_io.volume import LoadedSeries
from dicom_io.write.header import (
    MANUFACTURER,
    RESEARCH_USE_ONLY,
    Identity,
    algorithm_parameters,
    arguments,
    long_string,
    settle,
    without_patient,
)
from engines.contract import LabelMap, Products, Volume

SINGLE_FRAME_CLASSES: Final = {"PT": PositronEmissionTomographyImageStorage, "CT": CTImageStorage}
TISSUE: Final = Code("85756007", "SCT", "Tissue")
GRID_TOLERANCE_MM: Final = 1e-2


def segmentation(products: Products, source: LoadedSeries, identity: Identity) -> Dataset | None:
    """The regions as one Segmentation instance in a series of its own; None where nothing was found.

    Segments are numbered 1…n in the order of their labels; frames without any pixel of a segment are left out.
    `source` is the static series whose grid the label map is on, single-frame or multi-frame.

    Raises
    ------
    ValueError
        The label map is not on the grid of the source: a fault of the engine.
    GeometryRefused
        not-static.
    """
    label_map = products.label_map
    labels = [] if label_map is None else present_labels(label_map)
    if label_map is None or not labels:
        return None
    _check_grid(label_map, source.static)
    first = source.datasets[0]
    with config.disable_value_validation():
        dataset = hd.seg.Segmentation(
            source_images=[_as_single_frame(image) for image in source.datasets],
            pixel_array=_numbered(label_map.array, labels),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(products, label_map, labels, identity),
            pixel_measures=hd.PixelMeasuresSequence(
                pixel_spacing=[float(mm) for mm in first.PixelSpacing],
                slice_thickness=float(first.get("SliceThickness") or source.static.spacing_mm[0]),
                spacing_between_slices=source.static.spacing_mm[0],
            ),
            omit_empty_frames=True,
            content_label="LESIONS" if products.lesions else "REGIONS",
            content_description=RESEARCH_USE_ONLY,
            **arguments(identity, "seg", "Lesions" if products.lesions else "Regions", first),
        )
        dataset.ContentCreatorName = None  # type 2: a program has no person's name
        _refer_to_frames(dataset, source.datasets)
        settle(dataset, first, identity)
    return dataset


def present_labels(label_map: LabelMap) -> list[int]:
    """The labels that have a voxel, ascending, without background."""
    return [int(label) for label in np.unique(label_map.array[label_map.array > 0])]


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


def _check_grid(label_map: LabelMap, volume: Volume) -> None:
    if label_map.array.shape != volume.array.shape:
        raise ValueError(f"label map {label_map.array.shape} is not on the source grid {volume.array.shape}")
    if geometry.apart_mm(label_map.affine, volume.affine, volume.array.shape) > GRID_TOLERANCE_MM:
        raise ValueError("label map is not on the source grid: its affine differs")


def _as_single_frame(image: Dataset) -> Dataset:
    """A slice as highdicom needs it; a frame of a multi-frame image as if it were an instance, under its own UID.

    highdicom takes one multi-frame image with all its frames in the order of the array or not at all; slices may come
    in any order, and from several instances (a concatenation).
    """
    bare = without_patient(image)
    if "ReferencedFrameNumber" in image:
        own = Dataset()
        own.SOPClassUID, own.SOPInstanceUID = SINGLE_FRAME_CLASSES[image.Modality], _uid_of_frame(image)
        bare.update(own)  # puts new elements there: those of the image are not ours to change
    return bare


def _uid_of_frame(image: Dataset) -> UID:
    return UID(f"{image.SOPInstanceUID}.{image.ReferencedFrameNumber}")


def _refer_to_frames(dataset: Dataset, images: Sequence[Dataset]) -> None:
    """Put the instance and the frame number in place of each UID that `_as_single_frame` made, in place."""
    frames = {_uid_of_frame(image): image for image in images if "ReferencedFrameNumber" in image}
    if not frames:
        return
    (series,) = dataset.ReferencedSeriesSequence
    instances = {image.SOPInstanceUID: _reference(image) for image in images}
    series.ReferencedInstanceSequence = list(instances.values())
    dataset.SourceImageSequence = list(instances.values())
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        for item in groups.DerivationImageSequence[0].SourceImageSequence:
            image = frames.get(item.ReferencedSOPInstanceUID)
            if image is not None:  # segments on one slice share its item
                item.update(_reference(image))
                item.ReferencedFrameNumber = image.ReferencedFrameNumber


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


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
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=region_name(label_map, label),
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure if label in lesions else TISSUE,
            segmented_property_type=codes.SCT.Lesion if label in lesions else TISSUE,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=tracking_uid(identity, label),
            tracking_id=region_name(label_map, label),
        )
        description.SegmentDescription = RESEARCH_USE_ONLY
        description.RecommendedDisplayCIELabValue = list(_colour(number).value)
        descriptions.append(description)
    return descriptions


def algorithm_family(identity: Identity) -> Code:
    """CID 7162: artificial intelligence where there are weights, else the nearest to thresholds there is."""
    learned: Code = codes.cid7162.ArtificialIntelligence
    classical: Code = codes.cid7162.HistogramAnalysis
    return learned if identity.weights_sha256 else classical


def _colour(number: int) -> hd.color.CIELabColor:
    """A colour per segment: hues a golden section apart, so that neighbours differ however many there are."""
    rgb = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.75, 0.95)
    return hd.color.CIELabColor.from_rgb(*(round(255 * value) for value in rgb))
