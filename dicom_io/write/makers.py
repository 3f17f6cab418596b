"""How the PET scanners of three makers write the same measurement, each in its own way.

Taken from headers of real scanners, not from conformance statements. Where they come from:

- cornerstonejs/calculate-suv, test data: one header each of Siemens, GE and Philips. Units, Corrected Image, digits of
  times, Philips' two factors, and what Frame Reference Time (0054,1300) is: the time of mean activity at Siemens; 0 in
  GE's first bed; at Philips Acquisition Time less Series Time and half the frame (1123 s + 60 s, 1665 s + 90 s).
- Soft-tissue-Sarcoma (TCIA), GE Discovery ST: Frame Reference Time 1098 s goes with Decay Factor 1.13312, which is
  e^{λ·1098 s}·λT/(1 − e^{−λT}) of F-18 and 180 s, so it is the start of the frame; signed pixels; a slope per slice;
  STATIC for whole bodies; the methods of correction.
- Private elements by pydicom's dictionary; that GE's activities are in MBq, by values of real headers.

Not known from any header, and so a choice: that Philips has one slope for the series, and GE's words for no attenuation
correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

MakerName = Literal["siemens", "ge", "philips"]
GE_BLOCK: Final = (0x0009, "GEMS_PETD_01")
PHILIPS_BLOCK: Final = (0x7053, "Philips PET Private Group")
PHILIPS_BQML_PER_COUNT: Final = 1.602563
"""Of one real scanner; the calibration makes it another on every day."""
FACTOR_DIGITS: Final = 7
"""Significant digits of Philips' factors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What one maker writes in its own way.

    manufacturer, model : of the simulation, which never claims to be a real scanner
    units : Units (0054,1001) unless an examination says otherwise
    corrected_image : Corrected Image (0028,0051) where everything is corrected
    attenuation, scatter : the method (0054,1101), (0054,1105) where corrected and where not; None leaves it out
    randoms, collimator : (0054,1100), (0018,1181)
    corrected_words : how a description says attenuation-corrected
    whole_body : whether several beds are WHOLE BODY in Series Type (0054,1000); else STATIC
    frame_reference : what Frame Reference Time (0054,1300) is the time of
    slope_per_slice : else one Rescale Slope for the series
    signed : Pixel Representation (0028,0103)
    whole_seconds : times without a fraction where there is none
    """

    manufacturer: str
    model: str
    units: Literal["BQML", "CNTS"]
    corrected_image: tuple[str, ...]
    attenuation: tuple[str, str | None]
    scatter: tuple[str, str | None]
    randoms: str
    collimator: str = "NONE"
    corrected_words: str = "AC"
    whole_body: bool = True
    frame_reference: Literal["mean activity", "start", "middle"]
    slope_per_slice: bool = True
    signed: bool = False
    whole_seconds: bool = True

    def frame_reference_s(self, mean_activity_s: float, duration_s: float) -> float:
        """Frame Reference Time after the start of the frame [s].

        mean_activity_s : when the activity is its mean over the frame (PS3.3 C.8.9.4.1.5)
        """
        return {"mean activity": mean_activity_s, "start": 0.0, "middle": duration_s / 2.0}[self.frame_reference]


HABITS: Final[Mapping[MakerName, Habits]] = MappingProxyType(
    {
        "siemens": Habits(
            manufacturer="SIMULATED",
            model="Simulated PET/CT",
            units="BQML",
            corrected_image=("NORM", "DTIM", "ATTN", "SCAT", "RAN", "DECY"),
            attenuation=("measured", None),
            scatter=("SIMULATED", None),
            randoms="DLYD",
            frame_reference="mean activity",
            whole_seconds=False,
        ),
        "ge": Habits(
            manufacturer="SIMULATED GE",
            model="Simulated PET/CT, GE-like",
            units="BQML",
            corrected_image=("DECY", "ATTN", "SCAT", "DTIM", "RANSNG", "DCAL", "SLSENS", "NORM"),
            attenuation=("measured,, 0.096000 cm-1,", None),
            scatter=("Convolution subtraction", None),
            randoms="SING",
            collimator="RING",
            whole_body=False,
            frame_reference="start",
            signed=True,
        ),
        "philips": Habits(
            manufacturer="SIMULATED Philips",
            model="Simulated PET/CT, Philips-like",
            units="CNTS",
            corrected_image=("DECY", "RADL", "ATTN", "SCAT", "DTIM", "RAN", "NORM"),
            attenuation=("CTAC-SG", "NONE"),
            scatter=("SS-SIMUL", "NONE"),
            randoms="DLYD",
            corrected_words="CTAC",
            frame_reference="middle",
            slope_per_slice=False,
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GEScan:
    """What GE's private block repeats of the scan and the injection; times are DT.

    scanned : start of the scan, to which START is corrected; stays when Series Time is rewritten
    radionuclide : "F-18"
    """

    scanned: str
    injected: str
    tracer: str
    radionuclide: str
    dose_bq: float
    half_life_s: float
    positron_fraction: float


def put_ge_block(dataset: Dataset, scan: GEScan) -> None:
    """(0009,xx..) GEMS_PETD_01. The syringe was measured [MBq] when it was injected, and was empty after it."""
    symbol, mass = scan.radionuclide.split("-")
    group, creator = GE_BLOCK
    block = dataset.private_block(group, creator, create=True)
    block.add_new(0x0D, "DT", scan.scanned)
    block.add_new(0x36, "LO", scan.tracer)
    block.add_new(0x38, "FL", scan.dose_bq / 1e6)
    block.add_new(0x39, "DT", scan.injected)
    block.add_new(0x3B, "DT", scan.injected)
    block.add_new(0x3C, "FL", 0.0)
    block.add_new(0x3D, "DT", scan.injected)
    block.add_new(0x3E, "SH", f"{mass}{symbol}")
    block.add_new(0x3F, "FL", scan.half_life_s)
    block.add_new(0x40, "FL", scan.positron_fraction)


def put_philips_factors(dataset: Dataset, suv_per_count: float) -> None:
    """(7053,xx00), SUVbw [g/mL] of a count, 0 where a series is no SUV; (7053,xx09), Bq/mL of a count."""
    group, creator = PHILIPS_BLOCK
    block = dataset.private_block(group, creator, create=True)
    block.add_new(0x00, "DS", _factor(suv_per_count))
    block.add_new(0x09, "DS", _factor(PHILIPS_BQML_PER_COUNT))


def _factor(value: float) -> str:
    return str(format_number_as_ds(float(f"{value:.{FACTOR_DIGITS}g}")))
