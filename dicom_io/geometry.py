"""Slices → one regular grid in the patient: order, affine, and refusal with numbers where there is no such grid.

Everything follows from Image Position and Image Orientation (Patient) and Pixel Spacing (PS3.3 C.7.6.2, C.10.7.1.3);
Slice Thickness is how thick a slice is, not where the next one lies, and is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

from dicom_io.errors import GeometryRefused
from dicom_io.headers import Header, number, numbers
from engines.contract import Affine

COSINE_TOLERANCE = 2e-3
"""Direction cosines: headers round them to three digits or more. Each is then off by up to 0.0005, the length of a
direction by 0.0009, the product of two by 0.0017, the normal by 0.0012."""
SPACING_TOLERANCE = 1e-3
"""Pixel Spacing, relative: half a pixel over 500 pixels."""
POSITION_TOLERANCE_MM = 0.18
"""How far a slice may lie from its place on the grid: headers round positions to 0.1 mm, which in three dimensions
moves a slice by up to 0.087 mm, and by twice that from the line through the first and the last."""
LATERAL_TOLERANCE_PIXELS = 0.1
"""How far across the normal, where this is more; a gantry tilt of 1° moves a slice by 18 mm over one metre."""
SAME_PLACE_MM = 0.02
"""Slices closer than this are two images of one place."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """The regular grid that a set of slices fills.

    order : for z = 0, 1, …, the index of that slice in the headers given; z runs along the slice normal
    affine : float64 (4, 4), (z, y, x, 1) → LPS mm
    shape : (z, y, x)
    """

    order: tuple[int, ...]
    affine: Affine
    shape: tuple[int, int, int]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along (z, y, x) [mm]."""
        z, y, x = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    @property
    def orientation(self) -> tuple[float, ...]:
        """Direction of the columns' index, then of the rows' index, as Image Orientation (Patient)."""
        across, down = self.affine[:3, 2], self.affine[:3, 1]
        return tuple(float(c) for c in (*across / np.linalg.norm(across), *down / np.linalg.norm(down)))

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """Distance of the first and the last slice's centre from the origin along the normal [mm]."""
        normal = self.affine[:3, 0] / np.linalg.norm(self.affine[:3, 0])
        first = float(normal @ self.affine[:3, 3])
        return first, first + (self.shape[0] - 1) * self.spacing_mm[0]


def grid(headers: Sequence[Header]) -> Grid:
    """The grid of one volume's slices, given in any order.

    Raises
    ------
    GeometryRefused
        no-position, multi-frame, mixed-size, mixed-spacing, mixed-orientation, mixed-frame-of-reference,
        bad-orientation, bad-spacing, single-slice, duplicate-position, missing-slice, uneven-spacing, gantry-tilt.
    """
    check_one_kind(headers)
    (across, down), spacing = _orientation(headers), _pixel_spacing(headers)
    positions = _rows(headers, "ImagePositionPatient", 3)
    order = np.argsort(positions @ np.cross(across, down), kind="stable")
    positions = positions[order]
    across, down = _square_to_stack(across, down, positions)
    normal = np.cross(across, down)
    step = _step(headers, positions, normal)
    _check_lateral(positions, normal, float(min(spacing)))
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1] = down * spacing[0]
    affine[:3, 2] = across * spacing[1]
    affine[:3, 3] = positions[0]
    shape = (len(headers), int(headers[0]["Rows"]), int(headers[0]["Columns"]))
    return Grid(tuple(int(index) for index in order), affine, shape)


def apart_mm(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between the places that two affines give to one voxel of an array (…, z, y, x) [mm]."""
    corners = np.array([[*corner, 1] for corner in product(*((0, count - 1) for count in shape[-3:]))])
    return float(np.linalg.norm(((one - other) @ corners.T)[:3], axis=0).max())


def distances_mm(headers: Sequence[Header]) -> Vector | None:
    """Where each slice lies along the normal of the first [mm]; None where a position or orientation is missing."""
    orientation = numbers(headers[0], "ImageOrientationPatient", 6) if headers else None
    positions = [numbers(header, "ImagePositionPatient", 3) for header in headers]
    if orientation is None or None in positions:
        return None
    return np.asarray(positions, dtype=np.float64) @ np.cross(orientation[:3], orientation[3:])


def places(headers: Sequence[Header]) -> list[list[int]] | None:
    """Indices of the headers by place along the normal; more than one per place in dynamic and gated series."""
    along = distances_mm(headers)
    if along is None:
        return None
    order = np.argsort(along, kind="stable")
    groups: list[list[int]] = []
    for previous, index in zip((None, *order[:-1]), order, strict=True):
        if previous is not None and along[index] - along[previous] < SAME_PLACE_MM:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return groups


def check_one_kind(headers: Sequence[Header]) -> None:
    """Raise GeometryRefused where slices cannot belong together: frames, sizes or frames of reference differ."""
    if not headers:
        raise GeometryRefused("slices: expected at least one, got none", code="no-position")
    multi = sum(header.get("NumberOfFrames") not in (None, 1) for header in headers)
    if multi:
        message = f"NumberOfFrames (0028,0008): expected single-frame images, {multi} have more frames"
        raise GeometryRefused(message, code="multi-frame")
    rows, columns = (_extent(headers, keyword) for keyword in ("Rows", "Columns"))
    if rows[0] != rows[1] or columns[0] != columns[1] or 0 in (*rows, *columns):
        message = (
            f"Rows, Columns: expected one size for all slices, got {rows[0]} to {rows[1]} rows "
            f"and {columns[0]} to {columns[1]} columns"
        )
        raise GeometryRefused(message, code="mixed-size")
    if any(header.get("FrameOfReferenceUID") != headers[0].get("FrameOfReferenceUID") for header in headers):
        message = "Frame of Reference UID (0020,0052): expected one, slices have several"
        raise GeometryRefused(message, code="mixed-frame-of-reference")


def _extent(headers: Sequence[Header], keyword: str) -> tuple[int, int]:
    found = [int(number(header, keyword) or 0) for header in headers]
    return min(found), max(found)


def _rows(headers: Sequence[Header], keyword: str, count: int) -> NDArray[np.float64]:
    """float64 (slices, count): one attribute of every slice."""
    found = [numbers(header, keyword, count) for header in headers]
    missing = found.count(None)
    if missing:
        message = f"{keyword}: expected {count} numbers on each of {len(headers)} slices, {missing} have none"
        raise GeometryRefused(message, code="no-position")
    return np.asarray(found, dtype=np.float64)


def _orientation(headers: Sequence[Header]) -> tuple[Vector, Vector]:
    """Two float64 (3,): the direction cosines all slices share, made exactly square and of unit length."""
    rows = _rows(headers, "ImageOrientationPatient", 6)
    apart = float(np.ptp(rows, axis=0).max())
    if apart > COSINE_TOLERANCE:
        message = f"Image Orientation (0020,0037): expected one, cosines differ by {apart:.4g}"
        raise GeometryRefused(message, code="mixed-orientation")
    across, down = np.split(np.median(rows, axis=0), 2)  # of all, lest the order of arrival matters
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    skew = abs(float(across @ down))
    if max(abs(length - 1.0) for length in lengths) > COSINE_TOLERANCE or skew > COSINE_TOLERANCE:
        message = (
            "Image Orientation (0020,0037): expected two unit vectors at a right angle, "
            f"got lengths {lengths[0]:.4g} and {lengths[1]:.4g}, product {skew:.4g}"
        )
        raise GeometryRefused(message, code="bad-orientation")
    across = across / lengths[0]
    return across, _perpendicular(down, across)


def _square_to_stack(across: Vector, down: Vector, positions: NDArray[np.float64]) -> tuple[Vector, Vector]:
    """Directions turned to be square to the line of the slices, where they miss that by no more than their rounding.

    Positions tell the normal better than rounded cosines do: 0.001 off is half a millimetre at the end of a long stack.
    """
    along = positions[-1] - positions[0]
    length = float(np.linalg.norm(along))
    if not length:  # one slice
        return across, down
    along = along / length
    if np.linalg.norm(along - np.cross(across, down)) > COSINE_TOLERANCE:
        return across, down
    across = _perpendicular(across, along)
    return across, np.cross(along, across)


def _perpendicular(vector: Vector, axis: Vector) -> Vector:
    """The part of a vector that is square to a unit vector, made of unit length."""
    part = vector - (vector @ axis) * axis
    return np.asarray(part / np.linalg.norm(part))


def _pixel_spacing(headers: Sequence[Header]) -> Vector:
    """float64 (2,): distance between rows, between columns [mm]."""
    rows = _rows(headers, "PixelSpacing", 2)
    if rows.min() <= 0.0:
        message = f"Pixel Spacing (0028,0030): expected positive, got {rows.min():g} mm"
        raise GeometryRefused(message, code="bad-spacing")
    apart = float((np.ptp(rows, axis=0) / rows.min(axis=0)).max())
    if apart > SPACING_TOLERANCE:
        message = f"Pixel Spacing (0028,0030): expected one, got {rows.min():g} to {rows.max():g} mm"
        raise GeometryRefused(message, code="mixed-spacing")
    return np.asarray(np.median(rows, axis=0))


def _step(headers: Sequence[Header], positions: NDArray[np.float64], normal: Vector) -> float:
    """Distance between neighbouring slices [mm]; positions sorted along the normal."""
    if len(positions) == 1:
        return _declared_step(headers[0])
    along = positions @ normal
    gaps = np.diff(along)
    if gaps.min() < SAME_PLACE_MM:
        count = int((gaps < SAME_PLACE_MM).sum())
        message = f"Image Position (0020,0032): expected one slice per place, {count} places have more"
        raise GeometryRefused(message, code="duplicate-position")
    usual = float(median_low(gaps))  # a gap that is there: the mean of a whole and a double one is neither
    if gaps.max() > 1.5 * usual:
        missing = int(np.rint(gaps / usual).sum()) - len(gaps)
        message = f"slices: expected one every {usual:.3f} mm, largest gap {gaps.max():.3f} mm, about {missing} missing"
        raise GeometryRefused(message, code="missing-slice")
    step = float((along[-1] - along[0]) / (len(along) - 1))
    off = float(np.abs(along - (along[0] + step * np.arange(len(along)))).max())
    if off > POSITION_TOLERANCE_MM:
        message = f"slices: expected one every {step:.3f} mm, gaps are {gaps.min():.3f} to {gaps.max():.3f} mm"
        raise GeometryRefused(message, code="uneven-spacing")
    return step


def _declared_step(header: Header) -> float:
    declared = number(header, "SpacingBetweenSlices")
    if declared is None or declared <= 0.0:
        raise GeometryRefused("slices: one slice alone has no slice spacing", code="single-slice")
    return declared


def _check_lateral(positions: NDArray[np.float64], normal: Vector, pixel_mm: float) -> None:
    """Slices must lie straight above each other: a sheared stack is no right-angled grid."""
    offsets = positions - positions[0]
    lateral = offsets - np.outer(offsets @ normal, normal)
    off = float(np.linalg.norm(lateral, axis=1).max())
    if off > max(POSITION_TOLERANCE_MM, LATERAL_TOLERANCE_PIXELS * pixel_mm):
        height = float(offsets[-1] @ normal)
        angle = np.degrees(np.arctan2(off, height))
        message = (
            f"slices: expected a stack along the normal, got {off:.2f} mm aside over {height:.1f} mm ({angle:.2f}°)"
        )
        raise GeometryRefused(message, code="gantry-tilt")
