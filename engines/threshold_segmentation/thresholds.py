"""Which voxels a threshold takes: at one SUV, or at a percentage of each hot spot's own SUVmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from engines.contract import FloatArray
from engines.errors import Stopped
from engines.lesions import Mask, Region, components, structure


def at_least(suv: FloatArray, threshold_suv: float, connectivity: int) -> list[Region]:
    """Connected components of SUV ≥ threshold."""
    return components(suv >= threshold_suv, connectivity)


@dataclass(frozen=True, slots=True)
class OwnMaximum:
    """Delineate at `share` (0 … 1) of the hot spot's own SUVmax, never below `seed_suv`."""

    share: float
    seed_suv: float
    connectivity: int

    def level(self, suv_max: float) -> float:
        """The threshold of a hot spot [g/mL]."""
        return max(self.seed_suv, self.share * suv_max)


def share_of_own_maximum(suv: FloatArray, rule: OwnMaximum, should_stop: Callable[[], bool]) -> list[Region]:
    """Every hot spot, delineated at a share of its own SUVmax.

    41 % of SUVmax is meant for one lesion in a volume that a reader drew around it (Krak 2005, EJNMMI 32:294;
    Boellaard 2015, EJNMMI 42:328). Without a reader this is computed instead. Hot spots are local maxima of at least
    `seed_suv`, looked at from the hottest down; one inside a lesion already found belongs to that lesion. For any
    other, of SUV b, R(b) is the connected component of SUV ≥ max(seed_suv, share · b) that holds it.

    - Is it the hottest voxel of R(b), then R(b) is a lesion.
    - Else it hangs together with a hotter spot, the maximum h of R(b), and is a part of that uptake. It is kept where
      it reaches the threshold of h, as the component of SUV ≥ max(seed_suv, share · h) that holds it; else dropped.

    Lesions are disjoint. For one hot spot in cold surroundings this is the published method; a weaker lesion beside a
    hotter one (a node beside the bladder) is still found if the uptake between them falls below `share` of the weaker.
    """
    found = []
    for seed in components(suv >= rule.seed_suv, rule.connectivity):
        hottest = float(suv[seed.box][seed.mask].max())
        # Where the floor decides for the hottest, it decides for all: R(b) is the whole component.
        alone = rule.level(hottest) == rule.seed_suv
        found += [seed] if alone else _hot_spots(suv, seed, rule, should_stop)
    return found


def _hot_spots(suv: FloatArray, seed: Region, rule: OwnMaximum, should_stop: Callable[[], bool]) -> list[Region]:
    """The hot spots of one connected component of SUV ≥ seed_suv; a settled voxel needs no further look."""
    values = np.where(seed.mask, suv[seed.box], 0.0)
    settled = ~seed.mask
    found: list[Region] = []
    for point in _local_maxima(values, seed.mask, rule.connectivity):
        if settled[point]:
            continue
        if should_stop():
            raise Stopped("asked to stop while delineating hot spots")
        reach = _component_at(values, rule.level(float(values[point])), point, rule.connectivity)
        hottest = float(values[reach].max())
        taken = reach
        if hottest > values[point]:
            taken = reach & (values >= rule.level(hottest)) & ~settled
            if hottest < values.max() and taken[point]:
                # Cooler spots in reach may hang together with a spot hotter still: decide on this one alone.
                taken = reach = _component_at(values, rule.level(hottest), point, rule.connectivity)
        found += [region.placed_in(seed.box) for region in components(taken, rule.connectivity)]
        settled |= reach
    return found


def _local_maxima(values: FloatArray, mask: Mask, connectivity: int) -> list[tuple[int, int, int]]:
    """Indices of the voxels of a mask that no neighbour exceeds, hottest first."""
    highest_around = ndimage.maximum_filter(values, footprint=structure(connectivity), mode="constant")
    peaks = np.argwhere(mask & (values == highest_around))
    order = np.argsort(-values[tuple(peaks.T)], kind="stable")
    return [(int(z), int(y), int(x)) for z, y, x in peaks[order]]


def _component_at(values: FloatArray, level: float, point: tuple[int, int, int], connectivity: int) -> Mask:
    labels, _ = ndimage.label(values >= level, structure(connectivity))
    component: Mask = labels == labels[point]
    return component
