"""The images a multi-frame product was made from: its grid, and the references by which viewers find them again.

A product of a series over time lies on the slices of the first time frame: they give its geometry, and each of its
frames refers to one of them, which is what a viewer draws it on. The lists of the object name every image of the
series: all of them were used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage, PositronEmissionTomographyImageStorage

from dicom_io.errors import PixelsRefused
from dicom_io.geometry import apart_mm
from dicom_io.volume import LoadedSeries
from dicom_io.write.header import without_patient
from engines.contract import FloatArray, LabelMap, Volume

SINGLE_FRAME_CLASSES: Final = {"PT": PositronEmissionTomographyImageStorage, "CT": CTImageStorage}
GRID_TOLERANCE_MM: Final = 1e-2
FAULT_OF_THE_ENGINE: Final = "A fault of the engine that computed the volume: report it to its author."


def slices(source: LoadedSeries) -> tuple[Dataset, ...]:
    """One image per slice, in the order of z: those of the first time frame."""
    return source.datasets[: source.volume.array.shape[-3]]


def check_grid(product: Volume | LabelMap, source: LoadedSeries) -> None:
    """Raise unless the voxels of a product are those of the source.

    Raises
    ------
    ValueError
        A fault of the engine.
    """
    shape = source.volume.array.shape[-3:]
    if product.array.shape != shape:
        raise ValueError(f"expected a product on the source grid {shape}, got {product.array.shape}")
    apart = apart_mm(product.affine, source.volume.affine, shape)
    if not apart <= GRID_TOLERANCE_MM:
        raise ValueError(f"expected a product on the source grid, got voxels up to {apart:.3g} mm aside")


def check_finite(array: FloatArray) -> None:
    """Raise PixelsRefused, not-finite, unless every value is a finite number."""
    faulty = int(np.count_nonzero(~np.isfinite(array)))
    if faulty:
        message = f"volume: expected finite values, {faulty} of {array.size} are not"
        raise PixelsRefused(message, code="not-finite", hint=FAULT_OF_THE_ENGINE)


def for_highdicom(images: Iterable[Dataset]) -> list[Dataset]:
    """Some of `slices` as highdicom needs them; frames of a multi-frame image as if they were instances.

    highdicom takes one multi-frame image with all its frames in the order of the array or not at all; slices may come
    in any order, and from several instances (a concatenation). `refer` puts the right references in afterwards.
    """
    return [_as_single_frame(image) for image in images]


def pixel_measures(source: LoadedSeries) -> hd.PixelMeasuresSequence:
    """In-plane spacing and slice thickness as the source states them, the distance of slices as their positions do."""
    first = source.datasets[0]
    between_mm = float(np.linalg.norm(source.volume.affine[:3, 0]))
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(mm) for mm in first.PixelSpacing],
        slice_thickness=float(first.get("SliceThickness") or between_mm),
        spacing_between_slices=between_mm,
    )


def refer(product: Dataset, source: LoadedSeries) -> None:
    """Make a highdicom object refer to the images there are, in place: instances once each, frames by their number."""
    instances = {image.SOPInstanceUID: reference(image) for image in source.datasets}
    (series,) = product.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = list(instances.values())
    product.SourceImageSequence = list(instances.values())
    frames = {_uid_of_frame(image): image for image in slices(source) if "ReferencedFrameNumber" in image}
    for groups in product.PerFrameFunctionalGroupsSequence if frames else ():
        for item in groups.DerivationImageSequence[0].SourceImageSequence:
            image = frames.get(item.ReferencedSOPInstanceUID)
            if image is not None:  # segments on one slice share its item
                item.update(frame_reference(image))


def keep_body_part(product: Dataset, image: Dataset) -> None:
    """Body Part Examined and Laterality (PS3.3 C.7.3.1) as the source states them, in place."""
    for keyword in ("BodyPartExamined", "Laterality"):
        if image.get(keyword):
            product[keyword] = image[keyword]


def reference(image: Dataset) -> Dataset:
    """SOP Instance Reference Macro (PS3.3 Table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def frame_reference(image: Dataset) -> Dataset:
    """Image SOP Instance Reference Macro (PS3.3 Table 10-3): with the number of the frame where there are several."""
    item = reference(image)
    if "ReferencedFrameNumber" in image:
        item.ReferencedFrameNumber = image.ReferencedFrameNumber
    return item


def once_each(images: Sequence[Dataset]) -> list[Dataset]:
    """One data set per instance: frames of one image are one instance."""
    return list({image.SOPInstanceUID: image for image in images}.values())


def _as_single_frame(image: Dataset) -> Dataset:
    bare = without_patient(image)
    if "ReferencedFrameNumber" in image:
        own = Dataset()
        own.SOPClassUID, own.SOPInstanceUID = SINGLE_FRAME_CLASSES[image.Modality], _uid_of_frame(image)
        bare.update(own)  # puts new elements there: those of the image are not ours to change
    return bare


def _uid_of_frame(image: Dataset) -> UID:
    return UID(f"{image.SOPInstanceUID}.{image.ReferencedFrameNumber}")
