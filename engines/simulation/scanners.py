"""The scanners that are simulated: whole-body PET of about 22 cm, beds 12.5 cm apart, at two sizes of voxel.

Sensitivity, scatter and resolution are those of the 22 cm class (Jakoby 2011, Phys Med Biol 56:2375): 9.7 cps/kBq on
the 70 cm line, 33 % scatter, 4.4 to 5 mm near the axis. With time of flight half the angles do, because a line already
says roughly where along it the decay was. A body and its arms must fit into the circle of view, 53 or 56 cm across.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engines.simulation.measurement import Scanner
from engines.simulation.projector import Geometry
from engines.simulation.reconstruction import Method

SMALL = Scanner(
    Geometry(pixels=96, pixel_mm=5.5, bins=128, bin_mm=4.125, angles=96, subsets=12),
    slice_mm=5.0,
    bed_slices=44,
    overlap_slices=19,
)
STANDARD = Scanner(
    Geometry(pixels=160, pixel_mm=3.5, bins=200, bin_mm=2.8, angles=144, subsets=12),
    slice_mm=3.3,
    bed_slices=66,
    overlap_slices=28,
)
PRESETS: Mapping[str, Scanner] = {"small": SMALL, "standard": STANDARD}
METHODS: Mapping[str, Method] = {"small": Method(), "standard": Method(filter_fwhm_mm=6.0)}
"""With these, FDG of 3.5 MBq/kg after an hour and 2 minutes a bed has 10 to 15 % noise in the liver."""


def with_tof(scanner: Scanner, fwhm_ps: float = 500.0) -> Scanner:
    """The same scanner with time of flight. Half the iterations come as near to the end, where noise is lower."""
    g = scanner.geometry
    return replace(scanner, geometry=replace(g, angles=g.angles // 2, tof_fwhm_ps=fwhm_ps))
