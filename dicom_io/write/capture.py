"""One page for people → Secondary Capture (PS3.3 A.8.1): projections with the regions drawn on them, numbers, warnings.

For viewers that show neither Segmentation nor report. Nothing that names a patient is drawn: no text of the source is
taken over but codes of the tracer, so that Burned In Annotation is NO and true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.valuerep import DA, TM

from dicom_io.volume import LoadedSeries
from dicom_io.write import pages
from dicom_io.write.concepts import MEANINGS
from dicom_io.write.header import FORMS, RESEARCH_USE_ONLY, Identity, arguments, ascii_text, settle
from dicom_io.write.seg import colour, present_labels
from dicom_io.write.sources import check_grid, keep_body_part, once_each, reference
from engines.contract import DynamicVolume, Lesion, Measurement, Products, Quantity, Volume

DPI: Final = 120
SUV_WINDOW: Final = (0.0, 7.0)
BRIGHTEST: Final = 0.999
"""Quantile of a volume without a usual window that is drawn black."""


def summary_page(products: Products, source: LoadedSeries, identity: Identity) -> Dataset:
    """The page as one RGB image of 1680 × 1080 pixels in a series of its own.

    source : the PET whose grid the label map is on; a series over time is drawn as its mean

    Raises
    ------
    ValueError
        The label map is not on the grid of the source: a fault of the engine.
    """
    if products.label_map is not None:
        check_grid(products.label_map, source)
    pixels = drawn(page_of(products, source, identity))
    first = source.datasets[0]
    ours = arguments(identity, "capture", "Summary", first)
    equipment = ours.pop("contributing_equipment")
    with config.disable_value_validation():
        image = SOPClass(
            study_instance_uid=first.StudyInstanceUID,
            sop_class_uid=FORMS["capture"].sop_class_uid,
            modality=FORMS["capture"].modality,
            **ours,
        )
        image.ContributingEquipmentSequence = equipment
        settle(image, first, identity)
        keep_body_part(image, first)
        if first.get("AnatomicRegionSequence"):
            image["AnatomicRegionSequence"] = first["AnatomicRegionSequence"]
        image.ConversionType = "WSD"
        image.DateOfSecondaryCapture = DA(ours["content_date"])
        image.TimeOfSecondaryCapture = TM(ours["content_time"])
        image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        image.BurnedInAnnotation = "NO"
        image.RecognizableVisualFeatures = "NO"
        image.PatientOrientation = None
        image.DerivationDescription = ascii_text(f"{RESEARCH_USE_ONLY}. {products.method}")[:1024]
        image.SourceImageSequence = [reference(original) for original in once_each(source.datasets)]
        _store(image, pixels)
    return image


def page_of(products: Products, source: LoadedSeries, identity: Identity) -> pages.Page:
    """What the page says: of lesions where there are any, else of the regions that measurements name."""
    pet = _still(source.volume)
    label_map = products.label_map
    labels = present_labels(label_map)
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    columns, regions, totals = _lesion_table(products.lesions, numbers)
    if not regions:
        columns, regions = _region_table(products.measurements)
    whole = [m for m in products.measurements if not m.region and m.name not in {"MTV", "TLG"}]
    return pages.Page(
        title=f"PET summary  ·  {identity.engine} {identity.engine_version}",
        facts=_facts(source, identity),
        headline=_headline(products),
        pet=pet,
        labels=None if label_map is None or not labels else _renumbered(label_map.array, numbers),
        columns=columns,
        regions=regions,
        totals=totals,
        warnings=products.warnings,
        notes=(
            f"Method: {products.method}",
            *([f"SUV reference: {source.suv_reference}"] if source.volume.quantity is Quantity.SUVBW else []),
            *(f"{m.name}: {m.value:.4g} {m.unit}" for m in whole),
            *(["Numbers in the margin are those of the table and of the segments."] if labels else []),
            *(["The images are the mean of all frames."] if isinstance(source.volume, DynamicVolume) else []),
        ),
        window=_window(pet),
        unit=_unit(pet.quantity),
    )


def drawn(page: pages.Page) -> NDArray[np.uint8]:
    """The page as uint8 (rows, columns, red green blue)."""
    buffer = BytesIO()
    pages.study_page(page).savefig(buffer, format="rgba", dpi=DPI, facecolor="white")
    shape = round(pages.HEIGHT_IN * DPI), round(pages.WIDTH_IN * DPI), 4
    return np.ascontiguousarray(np.frombuffer(buffer.getbuffer(), np.uint8).reshape(shape)[..., :3])


def _still(volume: Volume | DynamicVolume) -> Volume:
    """A volume as it is drawn: over time its mean, frames weighted by known durations; activity in kBq/mL."""
    scale = np.float32(1e-3 if volume.quantity is Quantity.ACTIVITY_BQML else 1.0)
    if isinstance(volume, Volume):
        return Volume(volume.array * scale, volume.affine, volume.quantity)
    durations_s = volume.frame_duration_s
    weights = durations_s if np.isfinite(durations_s).all() and durations_s.sum() > 0.0 else np.ones_like(durations_s)
    mean = np.tensordot((weights / weights.sum()).astype(np.float32), volume.array, axes=1)
    return Volume(mean * scale, volume.affine, volume.quantity)


def _window(pet: Volume) -> tuple[float, float]:
    if pet.quantity is Quantity.SUVBW:
        return SUV_WINDOW
    return 0.0, max(float(np.quantile(pet.array, BRIGHTEST)), float(np.finfo(np.float32).tiny))


def _unit(quantity: Quantity) -> str:
    if quantity is Quantity.ACTIVITY_BQML:
        return "activity concentration [kBq/mL]"
    meaning = MEANINGS[quantity]
    return f"{meaning.name} [{meaning.unit.value.partition('{')[0].replace('ml', 'mL')}]"


def _facts(source: LoadedSeries, identity: Identity) -> tuple[str, ...]:
    """Which job, and what kind of series: codes and numbers, no free text of the source."""
    frames = source.volume.array.shape[0] if isinstance(source.volume, DynamicVolume) else 1
    slices, rows, columns = source.volume.array.shape[-3:]
    apart_mm = float(np.linalg.norm(source.volume.affine[:3, 0]))
    tracer = _tracer(source.datasets[0])
    return (
        f"job {identity.job_id} ({identity.job_key[:12]})" + (f", edition {identity.edition}" * (identity.edition > 1)),
        *([tracer] if tracer else []),
        *([f"{frames} frames"] if frames > 1 else []),
        f"{slices} slices of {apart_mm:.3g} mm, {rows} × {columns}",
        f"made {identity.created.astimezone(identity.timezone):%Y-%m-%d %H:%M}",
    )


def _tracer(image: Dataset) -> str:
    given = next(iter(image.get("RadiopharmaceuticalInformationSequence") or ()), Dataset())
    for keyword in ("RadiopharmaceuticalCodeSequence", "RadionuclideCodeSequence"):
        code = next(iter(given.get(keyword) or ()), None)
        if code is not None and code.get("CodeMeaning"):
            return str(code.CodeMeaning).replace("^", " ").strip()
    return ""


def _headline(products: Products) -> str:
    count = len(products.lesions)
    if count:
        volume_ml, tlg_g = sum(one.volume_ml for one in products.lesions), sum(one.tlg_g for one in products.lesions)
        return f"{count} lesion{'s' * (count > 1)}, MTV {volume_ml:.1f} mL, TLG {tlg_g:.0f} g"
    return "Regional measurements" if any(m.region for m in products.measurements) else "No lesion found"


def _lesion_table(
    lesions: Sequence[Lesion], numbers: dict[int, int]
) -> tuple[tuple[str, ...], tuple[pages.Region, ...], tuple[str, ...]]:
    """Columns, one line per lesion in the order of the segments, and their totals."""
    listed = sorted((one for one in lesions if one.label in numbers), key=lambda one: numbers[one.label])
    if not listed:
        return (), (), ()
    regions = tuple(
        pages.Region(
            numbers[one.label],
            colour(numbers[one.label]),
            (
                str(numbers[one.label]),
                f"{one.volume_ml:.1f}",
                f"{one.suv_max:.1f}",
                f"{one.suv_mean:.1f}",
                "–" if one.suv_peak is None else f"{one.suv_peak:.1f}",
                f"{one.tlg_g:.0f}",
            ),
        )
        for one in listed
    )
    volume_ml, tlg_g = sum(one.volume_ml for one in listed), sum(one.tlg_g for one in listed)
    mean = tlg_g / volume_ml if volume_ml else 0.0
    highest = max(one.suv_max for one in listed)
    totals = ("all", f"{volume_ml:.1f}", f"{highest:.1f}", f"{mean:.1f}", "", f"{tlg_g:.0f}")
    return pages.LESION_COLUMNS, regions, totals


def _region_table(measurements: Iterable[Measurement]) -> tuple[tuple[str, ...], tuple[pages.Region, ...]]:
    """One line per region that measurements name, one column per measure."""
    named = [m for m in measurements if m.region]
    columns = {(m.name, m.unit): None for m in named}
    values = {(m.region, m.name): f"{m.value:.2f}" for m in named}
    regions = tuple(
        pages.Region(0, colour(number), (region, *(values.get((region, name), "–") for name, _ in columns)))
        for number, region in enumerate(dict.fromkeys(m.region for m in named), start=1)
    )
    heads = (name if unit == "1" else f"{name}\n[{unit.replace('ml', 'mL')}]" for name, unit in columns)
    return (("Region", *heads), regions) if named else ((), ())


def _renumbered(array: NDArray[np.uint16], numbers: dict[int, int]) -> NDArray[np.uint16]:
    """Labels → the numbers of their segments."""
    lookup = np.zeros(max(numbers) + 1, np.uint16)
    lookup[list(numbers)] = list(numbers.values())
    return lookup[array]


def _store(image: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Image Pixel module (PS3.3 C.7.6.3) of an RGB image."""
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.LossyImageCompression = "00"
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OW"
