"""Tracers of real headers: GE, Philips, Siemens and CPS series, twenty sarcoma studies, six reference objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicom_io import headers, tracer
from tests.peers import real_data, unpack, unpack_sarcoma

VENDORS = (
    "BQML_AC_DT_lessThan_S_DT_SIEMENS", "CPS_AND_BQML_AC_DT_-_S_DT", "GE_MEDICAL_AND_BQML", "PHILIPS_BQML",
    "PHILIPS_CNTS_AND_BQML_SUV", "PHILIPS_CNTS_AND_SUV", "RADIOPHARM_DATETIME_UNDEFINED", "SIEMENS",
)  # fmt: skip


def resolved(path: Path) -> tracer.Tracer:
    header = headers.read(path).header
    descriptions = [header.get(keyword) or "" for keyword in ("SeriesDescription", "ProtocolName")]
    return tracer.resolve(headers.items(header, "RadiopharmaceuticalInformationSequence"), map(str, descriptions))


@pytest.mark.parametrize("name", VENDORS)
def test_vendor_headers_tell_the_radionuclide_and_the_series_text_the_tracer(name: str) -> None:
    """These were stripped of every name: of the injection they keep half-life, dose and times."""
    path = real_data() / "suv_vendor_headers" / "metadata" / f"{name}-instances.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the real data")
    instances: list[dict[str, Any]] = json.loads(path.read_text())
    items = [{"RadionuclideHalfLife": instance["RadionuclideHalfLife"]} for instance in instances]
    alone = tracer.resolve(items)
    assert (alone.tracer, alone.radionuclide, alone.confidence) == (None, "F-18", "none")
    assert all(line.startswith("half-life says F-18") for line in alone.evidence)
    named = tracer.resolve(items, ["PET FDG WB"])
    assert (named.tracer, named.radionuclide, named.confidence) == ("FDG", "F-18", "text only")


def studies() -> list[str]:
    folder = real_data() / "soft_tissue_sarcoma"
    return sorted(path.name.removesuffix(".tar.xz") for path in folder.glob("STS_*.tar.xz"))


def test_every_sarcoma_study_is_coded_fdg_in_one_of_three_code_schemes() -> None:
    schemes = set()
    for study in studies():
        path = min((unpack_sarcoma(study) / "PET" / "image").glob("*.dcm"))
        found = resolved(path)
        assert (found.tracer, found.radionuclide, found.confidence) == ("FDG", "F-18", "coded and agreeing"), study
        assert found.conflicts == ()
        (item,) = headers.items(headers.read(path).header, "RadiopharmaceuticalInformationSequence")
        schemes |= {entry["CodingSchemeDesignator"] for entry in headers.items(item, "RadiopharmaceuticalCodeSequence")}
    assert schemes <= {"99SDM", "SNM3", "SRT"}
    assert len(schemes) > 1


@pytest.mark.parametrize("name", ["DRO_0_0", "DRO_1_0", "DRO_2_0", "DRO_2_3", "DRO_4_0"])
def test_reference_objects_are_fdg_by_text(name: str) -> None:
    found = resolved(min(unpack(f"suv_reference_objects/{name}.tar.xz").rglob("PT/*.dcm")))
    assert (found.tracer, found.radionuclide, found.confidence) == ("FDG", "F-18", "text only")


def test_a_reference_object_with_the_code_of_ga_66_and_the_meaning_of_ga_68() -> None:
    """Text and half-life decide; the evidence shows the doubt."""
    found = resolved(min(unpack("suv_reference_objects/DRO_5_0.tar.xz").rglob("PT/*.dcm")))
    assert (found.tracer, found.radionuclide, found.confidence) == ("PSMA", "Ga-68", "text only")
    assert "radionuclide code says Ga-66 or Ga-68 (C-131A1 SRT ^68^Gallium)" in found.evidence
