"""The engine: fixed SUV, percentage of SUVmax, or a PERCIST-like threshold from the liver.

Physiological uptake is segmented like disease: a threshold cannot tell them apart, and every result says so.
scipy is imported when a volume arrives, not when a rule is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines import inputs
from engines.contract import Json, Lesion, Measurement, Products, Slot, Volume
from engines.errors import BadParameters
from engines.threshold_segmentation import parameters as known

if TYPE_CHECKING:
    from engines.lesions import Region

SUV_UNIT = "g/ml{SUVbw}"  # UCUM, PS3.16 CID 85
PHYSIOLOGICAL = "Physiological uptake (brain, heart, kidneys, bladder, bowel) is not excluded by a threshold."


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a method took: regions before any size limit, how to name it, and its own numbers."""

    regions: list[Region]
    method: str
    measurements: tuple[Measurement, ...]
    warnings: tuple[str, ...] = ()
    smallest_peak_suv: float = 0.0


class ThresholdSegmentation:
    """Classical lesion segmentation, the baseline that every learned engine must beat."""

    name = "threshold_segmentation"
    version = "1.0.0"
    weights_sha256: str | None = None
    inputs: Mapping[str, Slot] = known.INPUTS
    defaults: Mapping[str, Json] = known.DEFAULTS

    def check(self, parameters: Mapping[str, Json]) -> list[str]:
        """Every fault of the parameters in words."""
        return known.KNOWN.faults(parameters)

    def __call__(
        self, volumes: Mapping[str, Volume], parameters: Mapping[str, Json], should_stop: Callable[[], bool]
    ) -> Products:
        """Segment the PET; see README.md beside this file for the three methods.

        Raises
        ------
        BadParameters
            With every fault.
        CannotProcess
            Codes "missing-input", "wrong-quantity", "not-finite" and, for PERCIST, "no-liver".
        Stopped
            `should_stop` answered yes.
        """
        if faults := self.check(parameters):
            raise BadParameters("; ".join(faults))
        inputs.check(volumes, self.inputs)
        pet, ct = volumes["pet"], volumes.get("ct")
        chosen = {**self.defaults, **parameters}
        finding = METHODS[chosen["method"]](pet, ct, chosen, should_stop)
        return _products(pet, finding, chosen, should_stop)


def _fixed(pet: Volume, _: Volume | None, chosen: Mapping[str, Json], _stop: Callable[[], bool]) -> _Finding:
    from engines.threshold_segmentation.thresholds import at_least

    threshold = float(chosen["threshold_suv"])
    regions = at_least(pet.array, threshold, chosen["connectivity"])
    return _Finding(regions, f"SUV ≥ {threshold:g}", (Measurement("threshold", threshold, SUV_UNIT),))


def _percent(pet: Volume, _: Volume | None, chosen: Mapping[str, Json], should_stop: Callable[[], bool]) -> _Finding:
    from engines.threshold_segmentation.thresholds import OwnMaximum, share_of_own_maximum

    percent, seed = float(chosen["percent"]), float(chosen["seed_suv"])
    rule = OwnMaximum(percent / 100.0, seed, chosen["connectivity"])
    method = f"{percent:g} % of each hot spot's SUVmax, never below SUV {seed:g}"
    seed_measurement = Measurement("seed threshold", seed, SUV_UNIT)
    return _Finding(share_of_own_maximum(pet.array, rule, should_stop), method, (seed_measurement,))


def _percist(pet: Volume, ct: Volume | None, chosen: Mapping[str, Json], _stop: Callable[[], bool]) -> _Finding:
    """Wahl 2009: measurable is SULpeak ≥ 1.5 × liver mean + 2 SD. Here SUVbw, and the voxels' threshold as well."""
    from engines.threshold_segmentation.liver import EANM_RANGE, find_liver
    from engines.threshold_segmentation.thresholds import at_least

    liver = find_liver(pet, ct)
    threshold = 1.5 * liver.mean_suv + 2.0 * liver.sd_suv
    x, y, z = liver.centre_mm
    where = "on PET and CT" if ct is not None else "on PET alone, which may mistake other organs for it,"
    warnings = [f"Liver reference found {where} at ({x:.0f}, {y:.0f}, {z:.0f}) mm LPS: check that it is liver."]
    if not EANM_RANGE[0] <= liver.mean_suv <= EANM_RANGE[1]:
        warnings.append(f"Liver SUV {liver.mean_suv:.2f} is outside {EANM_RANGE[0]} to {EANM_RANGE[1]} (EANM 2015).")
    return _Finding(
        at_least(pet.array, threshold, chosen["connectivity"]),
        f"SUVbw ≥ {threshold:.2f} (1.5 × liver mean {liver.mean_suv:.2f} + 2 SD {liver.sd_suv:.2f}, PERCIST-like)",
        (
            Measurement("threshold", threshold, SUV_UNIT),
            Measurement("liver mean", liver.mean_suv, SUV_UNIT),
            Measurement("liver SD", liver.sd_suv, SUV_UNIT),
        ),
        tuple(warnings),
        smallest_peak_suv=threshold,
    )


METHODS: Mapping[str, Callable[[Volume, Volume | None, Mapping[str, Json], Callable[[], bool]], _Finding]] = {
    "fixed": _fixed,
    "percent": _percent,
    "percist": _percist,
}


def _products(pet: Volume, finding: _Finding, chosen: Mapping[str, Json], should_stop: Callable[[], bool]) -> Products:
    """Size limits, labels 1 … n from the largest, measures and their sums."""
    from engines.lesions import Limits, label_map, measured, totals

    def counts(lesion: Lesion) -> bool:
        """PERCIST counts no region whose SUVpeak is below the threshold."""
        return lesion.suv_peak is None or lesion.suv_peak >= finding.smallest_peak_suv

    smallest_ml = float(chosen["min_volume_ml"])
    found = measured(pet, finding.regions, Limits(smallest_ml, int(chosen["max_lesions"])), should_stop, counts)
    return Products(
        method=f"{finding.method}; {chosen['connectivity']}-connected, at least {smallest_ml:g} mL",
        label_map=label_map(pet, found.regions),
        lesions=tuple(found.lesions),
        measurements=(*totals(found.lesions), *finding.measurements),
        warnings=(PHYSIOLOGICAL, *finding.warnings, *found.warnings),
    )
