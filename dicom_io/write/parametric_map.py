"""A computed volume → Parametric Map (PS3.3 A.75) in float32: the exact numbers, for those who compute with them.

Stored values are the real-world values, in the unit that Real World Value Mapping names. Few viewers show this object:
`pet.derived_pet` writes the same volume as images that every PACS takes.
"""

from __future__ import annotations

from typing import Final

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept
from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io.errors import QuantityRefused
from dicom_io.volume import LoadedSeries
from dicom_io.write.concepts import MEANINGS, Meaning, derivation_code, window_of
from dicom_io.write.header import RESEARCH_USE_ONLY, Identity, arguments, long_string, settle
from dicom_io.write.sources import (
    FAULT_OF_THE_ENGINE,
    check_finite,
    check_grid,
    for_highdicom,
    keep_body_part,
    pixel_measures,
    refer,
    slices,
)
from engines.contract import Volume

BODY_STRUCTURE: Final = Code("123037004", "SCT", "Body structure")
"""True of every part: where the source names none that is known here."""
BODY_PARTS: Final = {
    "BRAIN": codes.SCT.Brain,
    "HEAD": codes.SCT.Head,
    "NECK": codes.SCT.Neck,
    "HEART": codes.SCT.Heart,
    "CHEST": codes.SCT.Chest,
    "ABDOMEN": codes.SCT.Abdomen,
    "PELVIS": codes.SCT.Pelvis,
    "WHOLEBODY": Code("38266002", "SCT", "Entire body"),
}
"""Body Part Examined (PS3.16 Annex L) in codes."""


def parametric_map(name: str, volume: Volume, source: LoadedSeries, identity: Identity) -> Dataset:
    """One volume as a Parametric Map instance in a series of its own.

    name : of the volume among the products of the engine; begins the Series Description and tells the UIDs apart
    volume : SUVbw [g/mL], activity [Bq/mL], K1, MBF [mL/min/g] or k2 [1/min] on the grid of the source
    source : single-frame or multi-frame, at one time or over time

    Raises
    ------
    ValueError
        Not on the grid of the source: a fault of the engine.
    QuantityRefused
        not-a-pet-quantity.
    PixelsRefused
        not-finite.
    """
    meaning = MEANINGS.get(volume.quantity)
    if meaning is None:
        message = f"volume: expected {', '.join(MEANINGS)}, got {volume.quantity.value}"
        raise QuantityRefused(message, code="not-a-pet-quantity", hint=FAULT_OF_THE_ENGINE)
    check_grid(volume, source)
    check_finite(volume.array)
    first = source.datasets[0]
    with config.disable_value_validation():
        dataset = hd.pm.ParametricMap(
            source_images=for_highdicom(slices(source)),
            pixel_array=np.ascontiguousarray(volume.array, dtype=np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[_mapping(volume, meaning)],
            voi_lut_transformations=[_window(volume)],
            pixel_measures=pixel_measures(source),
            content_label=long_string(meaning.name).upper()[:16],
            content_description=RESEARCH_USE_ONLY,
            derivation=derivation_code(volume.quantity),
            **arguments(identity, "parametric_map", name, first, of=name),
        )
        dataset.ContentCreatorName = None  # type 2: a program has no person's name
        _order_along_the_normal(dataset)
        refer(dataset, source)
        keep_body_part(dataset, first)
        dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(first)]
        settle(dataset, first, identity)
    return dataset


def _order_along_the_normal(dataset: Dataset) -> None:
    """Put the frames in the order of their places along the slice normal, in place.

    highdicom writes them against it, and says so in their positions; dcmqi, and with it 3D Slicer, stacks frames as
    they come and would show head and feet exchanged.
    """
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    row, column = np.array(orientation, np.float64).reshape(2, 3)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    positions = [np.array(one.PlanePositionSequence[0].ImagePositionPatient, np.float64) for one in groups]
    order = np.argsort(np.array(positions) @ np.cross(row, column))
    frames = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(len(groups), -1)
    dataset.FloatPixelData = np.ascontiguousarray(frames[order]).tobytes()
    dataset.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    for place, one in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        one.FrameContentSequence[0].DimensionIndexValues = [place]


def _anatomy(image: Dataset) -> Dataset:
    """Frame Anatomy (PS3.3 C.7.6.16.2.8): readers rely on it, dcmqi crashes without."""
    region = BODY_PARTS.get(str(image.get("BodyPartExamined") or ""), BODY_STRUCTURE)
    anatomy = Dataset()
    anatomy.FrameLaterality = image.get("Laterality") or "U"
    anatomy.AnatomicRegionSequence = image.get("AnatomicRegionSequence") or [CodedConcept.from_code(region)]
    return anatomy


def _mapping(volume: Volume, meaning: Meaning) -> hd.pm.RealWorldValueMapping:
    """Identity, valid from the lowest to the highest stored value."""
    return hd.pm.RealWorldValueMapping(
        lut_label=meaning.name,
        lut_explanation=f"{meaning.concept.meaning} [{meaning.unit.value}]",
        unit=meaning.unit,
        value_range=(float(volume.array.min()), float(volume.array.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=meaning.concept,
    )


def _window(volume: Volume) -> hd.VOILUTTransformation:
    low, high = window_of(volume.array, volume.quantity)
    return hd.VOILUTTransformation(window_center=(low + high) / 2.0, window_width=high - low)
