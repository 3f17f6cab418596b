"""Codes, texts and half-lives to tracers; what contradicts to "conflict", and what is not enough to "none"."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from dicom_io.radiopharmaceuticals import AGENTS, CODED_PRODUCTS
from dicom_io.tracer import Tracer, resolve

F18, GA68, RB82, C11, N13, O15, CU64, ZR89 = 6586.2, 4057.7, 76.4, 1221.8, 597.9, 122.24, 45721.0, 282276.0
FDG_CODE = ("35321007", "SCT", "Fluorodeoxyglucose F^18^")
F18_CODE = ("77004003", "SCT", "^18^Fluorine")


def drug(text: str | None = None, half_life_s: float | None = None, **codes: tuple[str, str, str]) -> dict[str, Any]:
    """An item of Radiopharmaceutical Information Sequence; codes as (value, scheme, meaning)."""
    item: dict[str, Any] = {}
    if text is not None:
        item["Radiopharmaceutical"] = text
    if half_life_s is not None:
        item["RadionuclideHalfLife"] = half_life_s
    for role, (value, scheme, meaning) in codes.items():
        sequence = {"tracer": "RadiopharmaceuticalCodeSequence", "nuclide": "RadionuclideCodeSequence"}[role]
        item[sequence] = [{"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}]
    return item


def answer(*items: dict[str, Any], descriptions: tuple[str, ...] = ()) -> tuple[str | None, str | None, str]:
    found = resolve(items, descriptions)
    return found.tracer, found.radionuclide, found.confidence


# Codes


CID_4021 = [
    (scheme, value, meaning)
    for scheme, keywords in cid_concepts[4021].items()
    for keyword in keywords
    for value, (meaning, groups) in concepts[scheme][keyword].items()
    if 4021 in groups
]
FROM_SCT = {sct: srt for srt, sct in mapping["SRT"].items()}
OUR_NAMES = {
    "FDG": "Fluorodeoxyglucose F^18^",
    "PSMA-11": "PSMA-11 Ga^68^",
    "PSMA-1007": "PSMA-1007 F^18^",
    "PSMA-617": "PSMA-617 Ga^68^",
    "DCFPyL": "Piflufolastat F^18^",
    "DCFBC": "DCFBC F^18^",
    "DOTATATE": "Dotatate Ga^68^",
    "DOTATOC": "Edotreotide Ga^68^",
    "Rb-82": "Rubidium chloride Rb^82^",
    "NH3": "Ammonia N^13^",
    "water": "Oxygen-water O^15^",
    "oxygen": "Oxygen O^15^",
    "carbon monoxide": "Carbon monoxide O^15^",
    "FES": "Fluoroestradiol F^18^",
    "choline": "Choline C^11^",
    "fluorocholine": "Fluorocholine F^18^",
    "NaF": "Sodium fluoride F^18^",
    "sodium iodide": "Sodium iodide I^124^",
    "FLT": "Thymidine F^18^",
    "fluciclovine": "Fluciclovine F^18^",
    "FET": "Fluorethyltyrosin F^18^",
    "FDOPA": "Fluoro-L-dopa F^18^",
    "FMISO": "Fluoromisonidazole F^18^",
    "methionine": "Methionine C^11^",
    "acetate": "Acetate C^11^",
    "florbetapir": "Florbetapir F^18^",
    "florbetaben": "Florbetaben F^18^",
    "flutemetamol": "Flutemetamol F^18^",
    "flurpiridaz": "Flurpiridaz F^18^",
    "PiB": "Pittsburgh compound B C^11^",
    "raclopride": "Raclopride C^11^",
    "MK-6240": "MK-6240 F^18^",
    "UCB-J": "UCB-J C^11^",
    "FP-DTBZ": "Fluoropropyl-dihydrotetrabenazine F^18^",
    "trastuzumab": "Trastuzumab ^89^Zr",
    "ATSM": "ATSM Cu^64^",
    "PK11195": "PK11195 ^11^C",
    "monoclonal antibody": "Monoclonal Antibody ^64^Cu",
}


def radionuclide_in(meaning: str) -> str:
    """`F^18^`, `^89^Zr` and `^18^Fluorine` at the end of a meaning."""
    if behind := re.search(r"([A-Z][a-z]?)\^(\d+)\^$", meaning):
        return f"{behind[1]}-{behind[2]}"
    before = re.search(r"\^(\d+)\^([A-Z][a-z]?)", meaning)
    assert before is not None, meaning
    return f"{before[2]}-{before[1]}"


def meanings() -> dict[str, tuple[str, str]]:
    return {meaning: (scheme, value) for scheme, value, meaning in CID_4021}


def test_the_whole_context_group_is_known() -> None:
    assert len(CID_4021) == 130
    assert len(CODED_PRODUCTS) == 131  # and GE's own for FDG


@pytest.mark.parametrize(("scheme", "value", "meaning"), CID_4021)
def test_every_code_of_cid_4021(scheme: str, value: str, meaning: str) -> None:
    alone = resolve([drug(tracer=(value, scheme, ""))])
    assert alone.tracer is not None
    assert (alone.radionuclide, alone.confidence) == (radionuclide_in(meaning), "coded")
    assert radionuclide_in(meaning) in AGENTS[alone.tracer].radionuclides
    designators = ("SRT", "SNM3", "99SDM") if value in FROM_SCT else ()
    entries = [(scheme, value), *((designator, FROM_SCT[value]) for designator in designators)]
    for designator, sent in entries:
        found = resolve([drug(tracer=(sent, designator, meaning))])
        assert (found.tracer, found.radionuclide, found.confidence) == (alone.tracer, alone.radionuclide, "coded")


@pytest.mark.parametrize(("name", "meaning"), OUR_NAMES.items())
def test_the_names_of_coded_tracers(name: str, meaning: str) -> None:
    scheme, value = meanings()[meaning]
    assert answer(drug(tracer=(value, scheme, meaning))) == (name, radionuclide_in(meaning), "coded")


def test_two_codes_of_one_tracer_are_the_same_substance() -> None:
    products = list(CODED_PRODUCTS.values())
    twice = {product for product in products if products.count(product) > 1}
    assert twice == {("flortaucipir", "F-18"), ("FDG", "F-18")}  # T807 became flortaucipir; GE has its own for FDG


def test_ge_codes_fdg_in_its_own_way() -> None:
    item = drug(
        "FDG -- fluorodeoxyglucose", 6588.0,
        tracer=("Y-X1743", "99SDM", "FDG -- fluorodeoxyglucose"), nuclide=("C-111A1", "99SDM", "18F"),
    )  # fmt: skip
    assert answer(item, descriptions=("IBSI_1_STS_001_PET_image", "")) == ("FDG", "F-18", "coded and agreeing")


def test_unknown_codes() -> None:
    unknown = ("129500000", "SCT", "Something F^18^")
    assert answer(drug(tracer=unknown)) == (None, "F-18", "none")
    assert answer(drug("FDG", F18, tracer=unknown)) == (None, "F-18", "conflict")
    assert answer(drug(tracer=("7", "99LOCAL", "FDG"))) == ("FDG", "F-18", "text only")
    assert answer(drug("FDG", tracer=("7", "99LOCAL", "whatever"))) == ("FDG", "F-18", "text only")
    assert answer(drug("FDG", nuclide=("1", "SCT", "unheard of"))) == (None, None, "conflict")
    assert answer(drug("FDG", nuclide=("1", "99LOCAL", "unheard of"))) == ("FDG", "F-18", "text only")


def test_a_radionuclide_code_in_the_place_of_the_radiopharmaceutical() -> None:
    assert answer(drug(tracer=F18_CODE)) == (None, "F-18", "none")
    assert answer(drug("FDG", tracer=F18_CODE)) == ("FDG", "F-18", "text only")
    assert answer(drug("FDG", tracer=("35337001", "SCT", "^68^Gallium"))) == (None, None, "conflict")


# How sure


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (drug(tracer=FDG_CODE), "coded"),
        (drug("Solution", tracer=FDG_CODE), "coded"),
        (drug("FDG", tracer=FDG_CODE), "coded and agreeing"),
        (drug("18F", tracer=FDG_CODE), "coded and agreeing"),
        (drug(tracer=FDG_CODE, nuclide=F18_CODE), "coded and agreeing"),
        (drug(None, F18, tracer=FDG_CODE), "coded and agreeing"),
        (drug("FDG", F18, tracer=FDG_CODE, nuclide=F18_CODE), "coded and agreeing"),
        (drug("FDG"), "text only"),
        (drug("FDG", F18, nuclide=F18_CODE), "text only"),
    ],
    ids=str,
)
def test_confidence_of_fdg(item: dict[str, Any], expected: str) -> None:
    assert answer(item) == ("FDG", "F-18", expected)


def test_the_series_text_confirms_no_code() -> None:
    assert answer(drug(tracer=FDG_CODE), descriptions=("PET FDG WB",)) == ("FDG", "F-18", "coded")


def test_rubidium_is_its_own_tracer() -> None:
    expected = Tracer("Rb-82", "Rb-82", "half-life only", ("half-life says Rb-82 (75 s)",), ())
    assert resolve([drug(half_life_s=75.0)]) == expected
    assert answer(drug(nuclide=("79197006", "SCT", "^82^Rubidium"))) == ("Rb-82", "Rb-82", "half-life only")
    assert answer(drug(half_life_s=O15)) == (None, "O-15", "none")
    assert answer(drug(half_life_s=F18)) == (None, "F-18", "none")
    assert answer(drug(half_life_s=109.8)) == (None, None, "none")
    assert answer(drug(half_life_s=590.0)) == (None, None, "none")
    assert answer(drug(half_life_s=590.0, nuclide=("21576001", "SCT", ""))) == (None, "N-13", "none")


def test_a_member_beside_its_family() -> None:
    psma_11 = ("C118961", "NCIt", "PSMA-11 Ga^68^")
    assert answer(drug("PSMA", GA68, tracer=psma_11)) == ("PSMA-11", "Ga-68", "coded and agreeing")
    assert answer(drug("PSMA-617"), descriptions=("PSMA WB",))[0] == "PSMA-617"
    assert answer(drug("PSMA", GA68), descriptions=("PSMA-11 WB",)) == ("PSMA", "Ga-68", "text only")
    antibody = ("126511", "DCM", "Monoclonal Antibody ^89^Zr")
    assert answer(drug("Zr-89 trastuzumab", ZR89, tracer=antibody)) == ("trastuzumab", "Zr-89", "coded and agreeing")
    assert answer(drug("89Zr-pembrolizumab", tracer=antibody)) == ("monoclonal antibody", "Zr-89", "coded and agreeing")


def test_a_radionuclide_tells_two_cholines_apart_and_none_does_not() -> None:
    found = resolve([drug("choline")])
    assert (found.tracer, found.radionuclide, found.confidence) == (None, None, "none")
    assert found.evidence == ("text says choline or fluorocholine (choline)",)
    assert answer(drug("choline", C11)) == ("choline", "C-11", "text only")
    assert answer(drug("choline", F18)) == ("fluorocholine", "F-18", "text only")


@pytest.mark.parametrize(
    "words",
    [
        *("solution", "SOLUCIÓN", "soluzione", "Lösung", "injection", "other", "unknown", "Unspecified", "none"),
        *("default", "isotope", "fluorine", "Fluor", "tracer", "radiopharmaceutical", "PET", "n/a", "NA"),
    ],
)
def test_words_that_name_no_radiopharmaceutical_leave_it_to_the_series_text(words: str) -> None:
    assert answer(drug(words, F18), descriptions=("PET FDG WB",)) == ("FDG", "F-18", "text only")


def test_one_item_that_cannot_be_read_is_enough_to_name_nothing() -> None:
    items = drug(half_life_s=F18), drug("XYZ-999", F18)
    assert answer(*items, descriptions=("PET FDG WB",)) == (None, "F-18", "none")


@pytest.mark.parametrize("scheme", ["SCT", "DCM", "NCIT", "UMLS", "SRT", "SNM3", "99SDM", "SDM", "SNM"])
def test_an_unknown_code_of_a_standard_scheme_is_another_tracer(scheme: str) -> None:
    found = resolve([drug("FDG", tracer=("129500000", scheme, ""))])
    assert found.conflicts == ("radiopharmaceutical code says none of those known, text says FDG",)
    assert answer(drug("FDG", tracer=("129500000", "99LOCAL", ""))) == ("FDG", "F-18", "text only")


@pytest.mark.parametrize("scheme", ["SCT", "SRT", "SNM3", "99SDM", "SDM", "SNM"])
@pytest.mark.parametrize("value", ["C-B1031", "35321007"])
def test_fdg_under_every_designator_of_snomed(scheme: str, value: str) -> None:
    assert answer(drug(tracer=(value, scheme, ""))) == ("FDG", "F-18", "coded")


def test_the_evidence_repeats_128_characters_of_what_was_sent() -> None:
    (line,) = resolve([drug("FDG " + "x" * 200)]).evidence
    assert line == f"text says FDG (FDG {'x' * 124})"


@pytest.mark.parametrize("half_life_s", [0.5, 1.0])
def test_the_shortest_half_life_is_evidence_too(half_life_s: float) -> None:
    assert resolve([drug(half_life_s=half_life_s)]).evidence == (
        f"half-life says {half_life_s:g} s, no known radionuclide",
    )


def test_nothing_said_is_nothing_known() -> None:
    assert resolve([]) == Tracer(None, None, "none", ())
    assert resolve([{}]) == Tracer(None, None, "none", ())
    assert resolve([], ["PET FDG WB"]) == Tracer(None, None, "none", ("series text says FDG",))


@pytest.mark.parametrize("odd", ["text", 5, None, [], [1, "x"], [{"CodeValue": None}], [{"CodeValue": [1]}], True])
def test_odd_values_name_nothing(odd: Any) -> None:
    item = {
        "RadiopharmaceuticalCodeSequence": odd,
        "RadionuclideCodeSequence": odd,
        "Radiopharmaceutical": odd if not isinstance(odd, str) else None,
        "RadionuclideHalfLife": odd if odd != 5 else -5,
    }
    assert resolve([item]).tracer is None


# Contradictions


PSMA_1007 = ("126758", "DCM", "PSMA-1007 F^18^")
CONFLICTS: list[tuple[dict[str, Any], str | None, str]] = [
    (drug("FDG", GA68), None, "text says FDG, half-life says Ga-68"),
    (drug("FDG", 109.8), None, "text says FDG, half-life says 109.8 s, no known radionuclide (in minutes F-18)"),
    (drug("FDG", 1.83), None, "text says FDG, half-life says 1.83 s, no known radionuclide"),
    (drug("PSMA-11", F18), None, "text says PSMA-11, half-life says F-18"),
    (drug("68Ga-PSMA", F18), None, "text says Ga-68, half-life says F-18"),
    (drug("Gallium PSMA", F18), None, "text says Ga-66 or Ga-68, half-life says F-18"),
    (drug("DOTATATE", F18), None, "text says DOTATATE, half-life says F-18"),
    (drug("Rubidium", F18), None, "text says Rb-82, half-life says F-18"),
    (drug("fluorocholine", C11), None, "text says fluorocholine, half-life says C-11"),
    (drug("NH3", 580.2), None, "text says NH3, half-life says Cu-62"),
    (drug("FDG/NaF", F18), "F-18", "text says FDG, text says NaF"),
    (drug("FDG and PSMA-1007", F18), "F-18", "text says FDG, text says PSMA-1007"),
    (drug("Ga-68 FDG"), None, "text says FDG, text says Ga-68"),
    (drug("F-18 DOTATATE"), None, "text says DOTATATE, text says F-18"),
    (drug("PSMA-1007", F18, tracer=FDG_CODE), "F-18", "radiopharmaceutical code says FDG, text says PSMA-1007"),
    (drug("FDG", F18, tracer=PSMA_1007), "F-18", "radiopharmaceutical code says PSMA-1007, text says FDG"),
    (
        drug(tracer=("35321007", "SCT", "PSMA-1007 F18")), "F-18",
        "radiopharmaceutical code says FDG, radiopharmaceutical code meaning says PSMA-1007",
    ),
    (drug(None, GA68, tracer=FDG_CODE), None, "radiopharmaceutical code says FDG, half-life says Ga-68"),
    (
        drug(None, CU64, tracer=("724025002", "SCT", "Dotatate Ga^68^")), None,
        "radiopharmaceutical code says DOTATATE, half-life says Cu-64",
    ),
    (
        drug(tracer=FDG_CODE, nuclide=("35337001", "SCT", "^68^Gallium")), None,
        "radiopharmaceutical code says FDG, radionuclide code says Ga-68",
    ),
    (drug("FDG", nuclide=("35337001", "SCT", "^68^Gallium")), None, "text says FDG, radionuclide code says Ga-68"),
    (drug("FDG", F18, nuclide=("129513004", "SCT", "")), None, "text says FDG, radionuclide code says acetate"),
    (drug(None, GA68, nuclide=F18_CODE), None, "radionuclide code says F-18, half-life says Ga-68"),
    (drug(None, 109.8, nuclide=F18_CODE), None,
     "radionuclide code says F-18, half-life says 109.8 s, no known radionuclide (in minutes F-18)"),
    (drug("FDG", F18, tracer=("129512009", "SCT", "")), None,
     "radiopharmaceutical code says raclopride, text says FDG"),
    (drug("FDG", F18, tracer=("129500000", "SCT", "")), "F-18",
     "radiopharmaceutical code says none of those known, text says FDG"),
    (drug("not FDG", F18, tracer=FDG_CODE), "F-18", "radiopharmaceutical code says FDG, text says not FDG"),
    (drug("choline", 590.0), None, "text says choline or fluorocholine, half-life says Cu-62 or N-13"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "radionuclide", "said"), CONFLICTS, ids=[said for _, _, said in CONFLICTS])
def test_contradictions_are_told(item: dict[str, Any], radionuclide: str | None, said: str) -> None:
    found = resolve([item])
    assert (found.tracer, found.radionuclide, found.confidence) == (None, radionuclide, "conflict")
    assert said in found.conflicts
    assert found.evidence


def test_several_contradictions_are_all_told() -> None:
    found = resolve([drug("FDG", GA68)], ["PSMA-11 WB"])
    assert found.conflicts == (
        "text says FDG, half-life says Ga-68",
        "text says FDG, series text says PSMA-11",
    )


def test_three_that_agree_in_pairs_only() -> None:
    found = resolve([drug("choline", F18)], ["non-fluorocholine"])
    assert (found.tracer, found.radionuclide, found.confidence) == (None, "F-18", "conflict")
    pieces = ("text says choline or fluorocholine", "half-life says F-18", "series text says not fluorocholine")
    assert found.conflicts == (f"nothing is all of this: {', '.join(pieces)}",)


def test_two_injections_of_one_tracer_agree_and_of_two_do_not() -> None:
    assert answer(drug("FDG", F18), drug("18F-FDG", 6588.0)) == ("FDG", "F-18", "text only")
    assert answer(drug("FDG", F18), drug("NaF", F18)) == (None, "F-18", "conflict")
    assert answer(drug("FDG", F18), drug("PSMA-11", GA68)) == (None, None, "conflict")
    assert answer(drug(half_life_s=F18), drug(half_life_s=GA68)) == (None, None, "conflict")


def test_conflicts_repeat_no_words_of_the_sender() -> None:
    found = resolve([drug("FDG for Jane Doe", GA68, nuclide=("1", "SCT", "Jane Doe"))], ["PSMA-11 Jane Doe"])
    assert found.conflicts
    assert "Doe" not in "".join(found.conflicts)


def test_many_contradictions_are_not_all_told() -> None:
    found = resolve([drug(name, half_life_s) for name in AGENTS for half_life_s in (F18, GA68, C11, ZR89)])
    assert found.confidence == "conflict"
    assert len(found.conflicts) == 8


# Series description and protocol name


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("PET PSMA WB", "PSMA"),
        ("PSMA-1007 torso", "PSMA-1007"),
        ("68Ga WB", "Ga-68"),
        ("Cu-64 WB", "Cu-64"),
        ("89Zr WB", "Zr-89"),
        ("Ga-68 DOTATATE", "DOTATATE"),
        ("FET Brain", "FET"),
        ("FES breast", "FES"),
        ("F-DOPA", "FDOPA"),
        ("Cholin Becken", "choline or fluorocholine"),
        ("NaF bone", "NaF"),
        ("FAPI or PSMA", "FAPI or PSMA"),
        ("WB non-FDG", "not FDG"),
        ("WB ohne FDG", "not FDG"),
        ("Rb-82 rest", "Rb-82"),
    ],
)
def test_series_text_vetoes_another_tracer(description: str, said: str) -> None:
    for item in (drug("FDG", F18), drug(tracer=FDG_CODE), drug("FDG", F18, tracer=FDG_CODE, nuclide=F18_CODE)):
        found = resolve([item], ["", description])
        assert (found.tracer, found.confidence) == (None, "conflict")
        assert any(conflict.endswith(f"series text says {said}") for conflict in found.conflicts), found.conflicts


def test_series_text_vetoes_another_radionuclide() -> None:
    found = resolve([drug("PSMA", GA68)], ["18F WB"])
    assert (found.tracer, found.confidence) == (None, "conflict")
    assert "half-life says Ga-68, series text says F-18" in found.conflicts


@pytest.mark.parametrize(
    "description",
    [
        "", "PET FDG WB", "PET WB (AC)", "FDG and PSMA", "WB water", "water phantom", "FLT 3mm", "Filter FLT", "NH3",
        "C11 - T12", "O 15", "I 124", "FESTE", "FETUS", "Colin27", "state", "PSMA-negative", "FDG-avid lesion",
        "PSMA avid", "18F-FDG", "F18", "44 scans", "acetate", "oxygen", "REST STRESS", "Head DOTA", "FAP syndrome",
    ],
)  # fmt: skip
def test_series_texts_that_do_not_speak_against_fdg(description: str) -> None:
    assert answer(drug("FDG", F18), descriptions=(description,)) == ("FDG", "F-18", "text only")


def test_series_text_names_a_tracer_only_beside_a_bare_radionuclide() -> None:
    bare = drug(half_life_s=F18)
    assert answer(bare, descriptions=("PET FDG WB",)) == ("FDG", "F-18", "text only")
    assert answer(drug("Solution", F18), descriptions=("", "FDG^Torso")) == ("FDG", "F-18", "text only")
    assert answer(drug("F18 Solution", nuclide=F18_CODE), descriptions=("FDG",)) == ("FDG", "F-18", "text only")
    assert answer(drug(half_life_s=GA68), descriptions=("PSMA WB",)) == ("PSMA", "Ga-68", "text only")
    # without a radionuclide, with an ambiguous one, or with two names it does not
    assert answer(drug(), descriptions=("PET FDG WB",)) == (None, None, "none")
    assert answer(drug(half_life_s=590.0), descriptions=("PET",)) == (None, None, "none")
    assert answer(bare, descriptions=("FDG or PSMA",)) == (None, "F-18", "none")
    assert answer(bare, descriptions=("non-FDG",)) == (None, "F-18", "none")
    assert answer(bare, descriptions=("FDG-avid",)) == (None, "F-18", "none")
    assert answer(bare, descriptions=("water",)) == (None, "F-18", "none")
    # nor where the item names something that we cannot read
    assert answer(drug("XYZ-999", F18), descriptions=("PET FDG WB",)) == (None, "F-18", "none")
    assert answer(drug(None, F18, tracer=("7", "99LOCAL", "XYZ")), descriptions=("FDG",)) == (None, "F-18", "none")
    # and against the radionuclide it is a contradiction
    assert answer(drug(half_life_s=GA68), descriptions=("PET FDG WB",)) == (None, None, "conflict")
    assert answer(bare, descriptions=("FDG", "PSMA")) == (None, "F-18", "conflict")
