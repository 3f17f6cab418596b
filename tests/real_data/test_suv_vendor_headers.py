"""PET headers of real scanners (cornerstonejs/calculate-suv), with the SUV factors published for them there.

The literals are those of its test/calculateSUV_SampleData.test.ts; the arithmetic is beside each.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest

from dicom_io import quantity
from tests.peers import real_data

Header = dict[str, Any]
FRAME_REFERENCE = "decay reference: by Frame Reference Time (0054,1300) instead of series time SUV would be {}"
PUBLISHED: dict[str, tuple[float, str, tuple[str, ...]]] = {
    # 64 000 g / 126 MBq · 2^(3657 s / 6586.2 s), 10:00:58 to Series Time 11:01:55. Frame Reference Time leads 21 min
    # further back: 11:01:56 + 60.3 s − 1328.7 s = 10:40:47.6, 2^(−1267/6586.2) = 0.875. Philips' own factors side with
    # Series Time: 0.003515736 / 4.709921 = 7.46453e-4.
    "PHILIPS_BQML": (0.0007463747013889488, "bqml-start-series-time", (FRAME_REFERENCE.format("-12%"),)),
    # Philips' factor as it is; weight, dose and times give 54 000/238e6 · 2^(3956/6588) · 1.602563 = 5.513e-4.
    "PHILIPS_CNTS_AND_BQML_SUV": (0.000551, "cnts-philips-suv", ()),
    "PHILIPS_CNTS_AND_SUV": (0.000728, "cnts-philips-suv", ()),
    # 67 000/374e6 · 2^(8264/6586.2), 08:30:45 to 10:48:29.
    "SIEMENS": (0.00042748316187197236, "bqml-start-series-time", ()),
    # 52 000/152 022 720 · 2^(4281/6586.2002), 08:45:00 to 09:56:21.
    "GE_MEDICAL_AND_BQML": (0.0005367387681819742, "bqml-start-series-time", ()),
    # Series Time 12:35:15 lies 5 µs after the acquisition: 12:35:14.999995 + T_ave 59.936855 − 59.936854672596 s, so
    # 65 000/225e6 · 2^(3255/6586.2), 11:41:00 to 12:35:15.
    "BQML_AC_DT_lessThan_S_DT_SIEMENS": (0.0004069156854009332, "bqml-start-back-computed", ()),
    # Series Time 13:49:18 is of post-processing: 69 000/388e6 · 2^(3791.234/6586.2), 12:00:37 to 13:03:48.234.
    "CPS_AND_BQML_AC_DT_-_S_DT": (0.00026503312764157046, "bqml-start-earliest-acquisition", ()),
    # 102 000/412e6 · 2^(3871.843/6586.2), 12:50:00 to 13:54:31.843; only a time of day.
    "RADIOPHARM_DATETIME_UNDEFINED": (0.0003721089202818729, "bqml-start-series-time", ()),
}


def vendor_headers(name: str) -> list[Header]:
    file = real_data() / "suv_vendor_headers" / "metadata" / f"{name}-instances.json"
    headers = []
    for instance in json.loads(file.read_text()):
        private = instance.pop("PhilipsPETPrivateGroup")
        drug = {key: instance.pop(key) for key in list(instance) if key.startswith(("Radionuclide", "Radiopharm"))}
        drug = {key: value.strip() if isinstance(value, str) else value for key, value in drug.items()}
        factors = {f"Philips{key}": float(value) for key, value in private.items()}
        headers.append(instance | factors | {"RescaleSlope": 1.0, "RadiopharmaceuticalInformationSequence": [drug]})
    return headers


@pytest.mark.parametrize("name", PUBLISHED)
def test_vendor_headers_give_the_published_factors(name: str) -> None:
    expected, branch, warnings = PUBLISHED[name]
    found = quantity.suvbw(vendor_headers(name), UTC)
    assert found.factors == pytest.approx([expected] * len(found.factors), rel=1e-7)
    assert (found.branch, found.warnings) == (branch, warnings)


@pytest.mark.parametrize(
    ("name", "weight_kg", "dose_bq", "uptake_s", "half_life_s"),
    [
        ("PHILIPS_BQML", 64, 126e6, 3657.0, 6586.199707),
        ("SIEMENS", 67, 374e6, 8264.0, 6586.2),
        ("GE_MEDICAL_AND_BQML", 52, 152022720, 4281.0, 6586.2001953125),
        ("BQML_AC_DT_lessThan_S_DT_SIEMENS", 65, 225e6, 3255.0, 6586.2),
        ("CPS_AND_BQML_AC_DT_-_S_DT", 69, 388e6, 3791.234, 6586.2),
        ("RADIOPHARM_DATETIME_UNDEFINED", 102, 412e6, 3871.843, 6586.2),
    ],
)
def test_the_arithmetic_beside_the_published_factors(
    name: str, weight_kg: float, dose_bq: float, uptake_s: float, half_life_s: float
) -> None:
    worked = weight_kg * 1000.0 / dose_bq * 2.0 ** (uptake_s / half_life_s)
    assert worked == pytest.approx(PUBLISHED[name][0], rel=1e-7)


@pytest.mark.parametrize("name", [name for name, (_, branch, _) in PUBLISHED.items() if branch.startswith("bqml")])
def test_without_a_weight_or_a_dose_they_are_refused(name: str) -> None:
    for keyword, code in (("PatientWeight", "no-weight"), ("RadionuclideTotalDose", "no-dose")):
        headers = vendor_headers(name)
        for header in headers:
            header.pop(keyword, None)
            header["RadiopharmaceuticalInformationSequence"][0].pop(keyword, None)
        with pytest.raises(quantity.QuantityRefused) as caught:
            quantity.suvbw(headers, UTC)
        assert caught.value.code == code
