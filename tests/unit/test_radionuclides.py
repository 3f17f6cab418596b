"""Half-lives against another evaluation, and what follows from those that are close together."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from dicom_io.radionuclides import CODES, RADIONUCLIDES, coded_radionuclide, radionuclides_of_half_life, spelled

MIN, H, D, Y = 60.0, 3600.0, 86400.0, 365.2422 * 86400.0
ICRP_107: dict[str, float] = {
    "C-11": 20.39 * MIN, "N-13": 9.965 * MIN, "O-14": 70.606, "O-15": 122.24, "F-18": 109.77 * MIN,
    "Na-22": 2.6019 * Y, "K-38": 7.636 * MIN, "Sc-43": 3.891 * H, "Sc-44": 3.97 * H, "Ti-45": 184.8 * MIN,
    "Mn-51": 46.2 * MIN, "Mn-52": 5.591 * D, "Mn-52m": 21.1 * MIN, "Fe-52": 8.275 * H, "Cu-60": 23.7 * MIN,
    "Cu-61": 3.333 * H, "Cu-62": 9.673 * MIN, "Cu-64": 12.700 * H, "Zn-62": 9.186 * H, "Ga-66": 9.49 * H,
    "Ga-68": 67.71 * MIN, "Ge-68": 270.95 * D, "As-70": 52.6 * MIN, "As-72": 26.0 * H, "Se-73": 7.15 * H,
    "Br-75": 96.7 * MIN, "Br-76": 16.2 * H, "Br-77": 57.036 * H, "Rb-82": 1.273 * MIN, "Y-86": 14.74 * H,
    "Y-90": 64.10 * H, "Zr-89": 78.41 * H, "Nb-90": 14.60 * H, "Tc-94m": 52.0 * MIN, "I-124": 4.176 * D,
    "Tb-152": 17.5 * H, "C-14": 5700 * Y, "I-131": 8.0207 * D,
}  # fmt: skip
"""ICRP Publication 107 (2008), an evaluation of its own."""
EVALUATED_ANEW = {"Sc-44": 0.019, "Rb-82": 0.013}
"""ENSDF has since moved these from 3.97 h to 4.042 h and from 1.273 min to 1.2575 min."""


@pytest.mark.parametrize("name", RADIONUCLIDES)
def test_half_lives_agree_with_icrp_107(name: str) -> None:
    tolerance = EVALUATED_ANEW.get(name, 0.002)
    assert RADIONUCLIDES[name].half_life_s == pytest.approx(ICRP_107[name], rel=tolerance)
    assert name in radionuclides_of_half_life(ICRP_107[name])


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        # what scanners and guidelines write
        (6586.2, "F-18"), (6586.2001953125, "F-18"), (6588.0, "F-18"), (6584.04, "F-18"), (6582.0, "F-18"),
        (6600.0, "F-18"), (4057.7, "Ga-68"), (4057.74, "Ga-68"), (4069.8, "Ga-68"), (4080.0, "Ga-68"), (75.0, "Rb-82"),
        (76.0, "Rb-82"), (76.38, "Rb-82"), (76.4, "Rb-82"), (1224.0, "C-11"), (1223.4, "C-11"), (1200.0, "C-11"),
        (598.0, "N-13"), (600.0, "N-13"), (122.0, "O-15"), (123.0, "O-15"), (120.0, "O-15"), (45721.0, "Cu-64"),
        (45720.0, "Cu-64"), (282240.0, "Zr-89"), (282276.0, "Zr-89"), (360806.0, "I-124"), (14292.0, "Sc-44"),
        (580.2, "Cu-62"), (597.9, "N-13"), (1266.0, "Mn-52m"), (33094.8, "Zn-62"), (34164.0, "Ga-66"),
        # too close to tell apart
        (590.0, "Cu-62 N-13"), (1243.0, "C-11 Mn-52m"), (3120.0, "As-70 Tc-94m"), (53064.0, "Nb-90 Y-86"),
        (33600.0, "Ga-66 Zn-62"), (14280.0, "Sc-43 Sc-44"),
        # minutes, hours, milliseconds, nonsense
        (109.77, ""), (109.8, ""), (110.0, ""), (1.83, ""), (67.7, ""), (68.0, ""), (78.4, ""), (20.4, ""), (9.97, ""),
        (2.0, ""), (12.7, ""), (6586200.0, ""), (0.0, ""), (-6586.2, ""), (math.inf, ""), (math.nan, ""), (1e308, ""),
    ],
)  # fmt: skip
def test_half_lives_in_headers(seconds: float, names: str) -> None:
    assert radionuclides_of_half_life(seconds) == set(names.split())


SYMBOLS = {
    "Carbon": "C", "Nitrogen": "N", "Oxygen": "O", "Fluorine": "F", "Sodium": "Na", "Potassium": "K",
    "Scandium": "Sc", "Titanium": "Ti", "Manganese": "Mn", "Iron": "Fe", "Copper": "Cu", "Zinc": "Zn",
    "Gallium": "Ga", "Germanium": "Ge", "Arsenic": "As", "Selenium": "Se", "Bromine": "Br", "Rubidium": "Rb",
    "Yttrium": "Y", "Zirconium": "Zr", "Niobium": "Nb", "Technetium": "Tc", "Iodine": "I", "Terbium": "Tb",
}  # fmt: skip
CID_4020 = [
    (scheme, value, meaning)
    for scheme, keywords in cid_concepts[4020].items()
    for keyword in keywords
    for value, (meaning, groups) in concepts[scheme][keyword].items()
    if 4020 in groups
]
FROM_SCT = {sct: srt for srt, sct in mapping["SRT"].items()}


def entry(scheme: str, value: str, meaning: str = "") -> dict[str, Any]:
    code = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
    return {"RadionuclideCodeSequence": [code]}


def test_the_whole_context_group_is_known() -> None:
    assert len(CID_4020) == len(CODES) == 36


@pytest.mark.parametrize(("scheme", "value", "meaning"), CID_4020)
def test_every_code_of_cid_4020(scheme: str, value: str, meaning: str) -> None:
    """Its meaning is written as ^18^Fluorine."""
    _, mass, element = meaning.split("^")
    name = f"{SYMBOLS[element]}-{mass}"
    assert coded_radionuclide(entry(scheme, value)) == name
    assert coded_radionuclide(entry(scheme, value, meaning)) == name
    assert coded_radionuclide(entry(scheme.lower(), f"{value} ", f"{mass}{SYMBOLS[element]}")) == name
    if scheme == "SCT":
        for designator in ("SRT", "SNM3", "99SDM"):
            assert coded_radionuclide(entry(designator, FROM_SCT[value])) == name
        assert coded_radionuclide(entry("SRT", value)) == name


def test_codes_that_name_no_radionuclide() -> None:
    assert coded_radionuclide({}) is None
    assert coded_radionuclide(entry("SCT", "35321007")) is None  # FDG
    assert coded_radionuclide(entry("DCM", "77004003")) is None  # another scheme's number
    assert coded_radionuclide(entry("99LOCAL", "7", "^18^Fluorine")) == "F-18"
    assert coded_radionuclide(entry("99LOCAL", "7", "Gallium")) is None  # Ga-66 or Ga-68


def test_of_a_text_256_characters_count() -> None:
    assert spelled("." * 252 + "F-18") == ({"F-18"},)
    assert spelled("." * 253 + "F-18") == ()


def test_a_code_whose_meaning_is_another_radionuclide_is_not_believed() -> None:
    """As the digital reference object DRO_5_0 of OncoRay has it: C-131A1 is Ga-66."""
    assert coded_radionuclide(entry("SRT", "C-131A1")) == "Ga-66"
    assert coded_radionuclide(entry("SRT", "C-131A1", "^68^Gallium")) is None
    assert coded_radionuclide(entry("SRT", "C-131A1", "Gallium")) == "Ga-66"
