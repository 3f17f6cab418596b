"""The truth of a simulated examination on the scanner's grid, half as fine as the body's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engines.contract import Affine, Json, LabelMap, Volume
from engines.simulation import kinetics
from engines.simulation.anatomy import Body, Tissue
from engines.simulation.compartments import STEP_S, Frame
from engines.simulation.heart import SEGMENTS
from engines.simulation.lesions import Spot
from engines.simulation.shapes import FloatArray


@dataclass(frozen=True, eq=False)
class Grown:
    """Lesions in a body.

    labels : uint16 (z, y, x) on the body's grid, number n is spots[n − 1]
    suv : float32 (z, y, x) on the body's grid, with the lesions
    """

    spots: tuple[Spot, ...]
    labels: NDArray[np.uint16]
    suv: FloatArray


def _eighths(fine: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """The eight fine voxels of each coarse one, every one (z, y, x)."""
    for corner in np.ndindex(2, 2, 2):
        yield fine[tuple(slice(start, None, 2) for start in corner)]


def organs(body: Body, affine: Affine) -> LabelMap:
    """The most frequent of eight tissues, of equals the first."""
    parts = list(_eighths(body.tissue))
    votes = np.ones((8, *parts[0].shape), np.uint8)
    for one, other in combinations(range(8), 2):
        same = parts[one] == parts[other]
        votes[one] += same
        votes[other] += same
    labels = np.choose(votes.argmax(axis=0), parts).astype(np.uint16)
    return LabelMap(labels, affine, {int(t): t.name.lower().replace("_", " ") for t in Tissue if t is not Tissue.AIR})


def lesions_on_grid(grown: Grown, affine: Affine) -> LabelMap:
    """Lesions on the scanner's grid: voxels of which at least half is the lesion; of smaller ones the fullest voxel."""
    labels = np.zeros([n // 2 for n in grown.labels.shape], np.uint16)
    for number in range(1, len(grown.spots) + 1):
        places = np.argwhere(grown.labels == number) // 2
        if not len(places):
            continue
        voxels, eighths = np.unique(places, axis=0, return_counts=True)
        chosen = voxels[eighths >= min(4, int(eighths.max()))]
        if eighths.max() < 4:
            chosen = chosen[:1]
        labels[tuple(chosen.T)] = number
    return LabelMap(labels, affine, {n: f"{spot.kind} {n}" for n, spot in enumerate(grown.spots, 1)})


def lesion_table(grown: Grown, body: Body, on_grid: LabelMap, image: Volume | None) -> list[Json]:
    """One row a lesion: where, how large, what it takes up (`true_…`) and what the full-count image shows of it."""
    spots, held, seen = grown.spots, grown.labels[grown.labels > 0], on_grid.array > 0
    voxels, uptake = np.bincount(held, minlength=len(spots) + 1), grown.suv[grown.labels > 0].astype(np.float64)
    total = np.bincount(held, uptake, minlength=len(spots) + 1)
    rows = []
    for number, spot in enumerate(spots, 1):
        own = on_grid.array[seen] == number
        row: dict[str, Json] = {
            "label": number,
            "kind": spot.kind,
            "site": spot.site,
            "centre_mm": [round(c, 1) for c in spot.centre_mm],
            "volume_ml": round(float(voxels[number]) * body.voxel_ml, 4),
            "true_suv_mean": round(float(total[number] / max(voxels[number], 1)), 4),
            "necrotic_share": round(spot.necrotic, 3),
            "voxels": int(own.sum()),
        }
        if image is not None and own.any():
            values = image.array[seen][own]
            row |= {"suv_max": round(float(values.max()), 4), "suv_mean": round(float(values.mean()), 4)}
        rows.append(row)
    return rows


def curves(scan: kinetics.Course, frames: tuple[Frame, ...]) -> Json:
    """Whole blood every second, and what each segment's pure myocardium would show in the frames [Bq/mL]."""
    every = round(1.0 / STEP_S)
    values, labels = scan.values(frames), scan.segments
    segments = {
        str(number): np.round(values[scan.regions[labels == number]].mean(axis=0), 2).tolist()
        for number in SEGMENTS
        if (labels == number).any()
    }
    blood = {
        "left_ventricle_bqml": np.round(scan.blood.left[::every], 2).tolist(),
        "right_ventricle_bqml": np.round(scan.blood.right[::every], 2).tolist(),
    }
    return {"step_s": 1.0, **blood, "segments_bqml": segments}
