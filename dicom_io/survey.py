"""One instance as `tracerd inspect` and `tracerd run` look at it: header and range of its pixels, no digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_io import elements as structure
from dicom_io import headers
from dicom_io.elements import EncodedFile, Limits
from dicom_io.errors import PixelsRefused
from dicom_io.headers import Header
from dicom_io.pixels import frame_count, read_dataset, stored_frame
from engines.contract import Json

NATIVE_SYNTAXES = (structure.IMPLICIT_LE, structure.EXPLICIT_LE)

Extremes = tuple[tuple[int, int], ...]
"""Lowest and highest stored value of each frame, before any rescaling."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over a file tells.

    header, association : as in `headers.Reading`
    extremes : of the frames of a PET object; None of any other, and where the pixels were refused
    pixels_refused : code and message of the `PixelsRefused`
    """

    header: dict[str, Json]
    association: dict[str, str | None]
    extremes: Extremes | None = None
    pixels_refused: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Json]:
        """As a JSON object; `from_json` takes it back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Survey:
        """The survey that `to_json` wrote."""
        return cls(**document)


def survey(path: Path, limits: Limits = headers.USUAL_LIMITS) -> Survey:
    """Read one file within the limits; the pixels of a PET are decoded, one range per frame is kept.

    Raises
    ------
    UnreadableObject
        As `headers.read`.
    """
    encoded = structure.read_file(path, limits)
    header = headers.checked_header(encoded, limits)
    association = headers.association_of(encoded)
    pixels = headers.checked_pixels(encoded, header, limits)
    if header.get("Modality") != "PT" or pixels is None:
        return Survey(header, association)
    try:
        return Survey(header, association, stored_extremes(path, encoded, header))
    except PixelsRefused as error:
        return Survey(header, association, None, (error.code, str(error)))


def stored_extremes(path: Path, encoded: EncodedFile, header: Header) -> Extremes:
    """Lowest and highest stored value of each frame of a file, which was walked already.

    Raises
    ------
    PixelsRefused
        As `pixels.stored_frame`; photometric.
    """
    if header.get("PhotometricInterpretation") != "MONOCHROME2" or header.get("SamplesPerPixel") not in (None, 1):
        message = "Photometric Interpretation (0028,0004): expected MONOCHROME2 with one sample per pixel"
        raise PixelsRefused(message, code="photometric")
    native = _native(encoded, header)
    if native is not None:
        return tuple(zip(native.min(axis=1).tolist(), native.max(axis=1).tolist(), strict=True))
    dataset = read_dataset(path, encoded.transfer_syntax_uid)
    frames = (stored_frame(dataset, index) for index in range(frame_count(dataset)))
    return tuple((int(frame.min()), int(frame.max())) for frame in frames)


def _native(encoded: EncodedFile, header: Header) -> NDArray[Any] | None:
    """(frames, pixels) of plain words that are all value; None of any other pixels, which pydicom has to decode."""
    bits = header["BitsAllocated"]
    plain = (
        encoded.transfer_syntax_uid in NATIVE_SYNTAXES
        and bits in {8, 16, 32}
        and (header.get("BitsStored"), header.get("HighBit")) == (bits, bits - 1)
        and header.get("LossyImageCompression") != "01"
        and structure.PIXEL_DATA in encoded.elements
    )
    if not plain:
        return None
    shape = header.get("NumberOfFrames") or 1, header["Rows"] * header["Columns"]
    dtype = f"<{'i' if header.get('PixelRepresentation') else 'u'}{bits // 8}"
    return np.frombuffer(encoded.data, dtype, prod(shape), encoded.elements[structure.PIXEL_DATA].start).reshape(shape)
