"""Faults put into the reading of SUV on purpose: each is one a programmer makes, and each must be found.

A mutation is called with `setattr` or pytest's `monkeypatch.setattr` and breaks the process it is called in.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from dicom_io import administration, decay_reference, patient, quantity, times, volume

SetAttribute = Callable[[Any, str, Any], None]


def forget_decay(put: SetAttribute) -> None:
    put(administration.Injection, "growth_until", lambda self, at: 1.0)


def forget_decay_within_the_frame(put: SetAttribute) -> None:
    put(administration.Injection, "frame_growth", lambda self, frame_s: 1.0)


def take_07_for_ln_2(put: SetAttribute) -> None:
    put(administration.Injection, "decay_per_s", property(lambda self: 0.7 / self.half_life_s))


def take_the_slope_of_the_first_slice(put: SetAttribute) -> None:
    slopes: dict[str, Any] = {}
    rescaled = volume.rescaled

    def with_first_slope(dataset: Any, header: Mapping[str, Any], *rest: Any) -> Any:
        slope = slopes.setdefault(header["SeriesInstanceUID"], header["RescaleSlope"])
        return rescaled(dataset, {**header, "RescaleSlope": slope}, *rest)

    put(volume, "rescaled", with_first_slope)


def swap_series_and_acquisition_time(put: SetAttribute) -> None:
    started, acquired = times.series_started, times.acquired
    put(times, "series_started", acquired)
    put(times, "acquired", started)


def skip_the_tag_of_ge(put: SetAttribute) -> None:
    put(decay_reference, "_ge_scan", lambda headers: None)


def skip_the_explicit_reference(put: SetAttribute) -> None:
    put(decay_reference, "_explicit", lambda headers: None)


def take_megabecquerel_for_becquerel(put: SetAttribute) -> None:
    put(administration, "MEGABECQUEREL_BELOW", 0.0)


def take_grams_for_kilograms(put: SetAttribute) -> None:
    put(patient, "GRAMS_ABOVE", inf)
    put(patient, "WEIGHT_RANGE_KG", (0.0, inf))


def take_centimetres_for_metres(put: SetAttribute) -> None:
    put(patient, "CENTIMETRES_ABOVE", inf)
    put(patient, "HEIGHT_RANGE_M", (0.0, inf))
    put(patient, "WEIGHT_RANGE_KG", (-inf, inf))


def correct_for_decay_since_the_injection_twice(put: SetAttribute) -> None:
    """ADMIN treated as START."""
    shared = quantity.shared

    def started(headers: Any, keyword: str) -> Any:
        found = shared(headers, keyword)
        return "START" if (keyword, found) == ("DecayCorrection", "ADMIN") else found

    put(quantity, "shared", started)


def forget_that_clocks_change(put: SetAttribute) -> None:
    def between(earlier: Any, later: Any, zone: Any) -> float:
        return (later.replace(tzinfo=None) - earlier.replace(tzinfo=None)).total_seconds()

    put(times, "seconds_between", between)
    put(times, "possible_seconds_between", lambda *moments: (between(*moments),))


def accept_uncorrected_images(put: SetAttribute) -> None:
    put(quantity, "_check_attenuation", lambda found: None)


MUTATIONS: dict[Callable[[SetAttribute], None], str] = {
    forget_decay: "BQML START, FDG",
    forget_decay_within_the_frame: "BQML NONE, Rb-82",
    take_07_for_ln_2: "BQML START, FDG",
    take_the_slope_of_the_first_slice: "GML",
    swap_series_and_acquisition_time: "BQML START, beds",
    skip_the_tag_of_ge: "BQML START, GE",
    skip_the_explicit_reference: "Enhanced PET",
    take_megabecquerel_for_becquerel: "BQML START, dose in MBq",
    take_grams_for_kilograms: "BQML START, weight in grams",
    take_centimetres_for_metres: "GML, LBMJANMA, O",
    correct_for_decay_since_the_injection_twice: "BQML ADMIN, FDG",
    forget_that_clocks_change: "BQML START, clocks go forward",
    accept_uncorrected_images: "refused, Corrected Image without ATTN",
}
"""Mutation → a reference object that shows it."""
