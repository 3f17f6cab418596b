"""Attenuation, scatter, decay and randoms correction: two attributes and what people type."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from dicom_io import corrections
from dicom_io.corrections import corrections_of, is_attenuation_corrected, text_says_corrected

Header = dict[str, Any]
LISTED = ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"]


def header(**changes: Any) -> Header:
    return {"Modality": "PT", "CorrectedImage": LISTED, "DecayCorrection": "START", **changes}


def lacking(term: str, **changes: Any) -> Header:
    return header(CorrectedImage=[value for value in LISTED if value != term], **changes)


def test_a_fully_corrected_series() -> None:
    methods = {
        "AttenuationCorrectionMethod": "measured,, 0.096000 cm-1,",
        "ScatterCorrectionMethod": "Convolution subtraction",
        "RandomsCorrectionMethod": "SING",
    }
    found = corrections_of([header(**methods)] * 3)
    assert (found.attenuation, found.scatter, found.decay, found.randoms) == (True, True, True, True)
    assert found.conflicts == ()
    assert found.evidence == (
        "attenuation: Corrected Image (0028,0051) has ATTN",
        "attenuation: AttenuationCorrectionMethod (0054,1101) names one",
        "scatter: Corrected Image (0028,0051) has SCAT",
        "scatter: ScatterCorrectionMethod (0054,1105) names one",
        "decay: Corrected Image (0028,0051) has DECY",
        "decay: DecayCorrection (0054,1102) names one",
        "randoms: Corrected Image (0028,0051) has RAN",
        "randoms: RandomsCorrectionMethod (0054,1100) names one",
    )


def test_a_header_that_says_nothing() -> None:
    found = corrections_of([{"Modality": "PT"}])
    assert (found.attenuation, found.scatter, found.decay, found.randoms) == (None, None, None, None)
    assert found.evidence == found.conflicts == ()


@pytest.mark.parametrize(
    ("name", "given", "answer", "conflicts"),
    [
        ("attenuation", lacking("ATTN"), False, 0),
        ("attenuation", header(AttenuationCorrectionMethod="NONE"), None, 1),
        ("attenuation", lacking("ATTN", AttenuationCorrectionMethod="measured"), None, 1),
        ("attenuation", lacking("ATTN", AttenuationCorrectionMethod="none"), False, 0),
        ("attenuation", header(CorrectedImage=None, AttenuationCorrectionMethod="No correction"), False, 0),
        ("attenuation", header(CorrectedImage=None, AttenuationCorrectionMethod="CTAC-SG"), None, 0),
        ("attenuation", header(AttenuationCorrectionMethod="unknown"), True, 0),
        ("attenuation", header(AttenuationCorrectionMethod="NORMALISED"), True, 0),
        ("scatter", lacking("SCAT"), False, 0),
        ("scatter", header(ScatterCorrectionMethod="None"), None, 1),
        ("scatter", header(CorrectedImage=None, ScatterCorrectionMethod="OFF"), False, 0),
        ("scatter", header(CorrectedImage=None, ScatterCorrectionMethod="Model-based"), None, 0),
        ("decay", lacking("DECY"), None, 1),
        ("decay", lacking("DECY", DecayCorrection="NONE"), False, 0),
        ("decay", header(DecayCorrection="NONE"), None, 1),
        ("decay", header(DecayCorrection="ADMIN"), True, 0),
        ("decay", header(CorrectedImage=None), True, 0),
        ("decay", header(CorrectedImage=None, DecayCorrection="NONE"), False, 0),
        ("decay", header(DecayCorrection=None), True, 0),
        ("randoms", lacking("RAN"), None, 0),
        ("randoms", lacking("RAN", RandomsCorrectionMethod="DLYD"), True, 0),
        ("randoms", header(RandomsCorrectionMethod="NONE"), None, 1),
        ("randoms", lacking("RAN", RandomsCorrectionMethod="NONE"), False, 0),
        ("randoms", header(CorrectedImage=["RANSNG"]), True, 0),
        ("randoms", header(CorrectedImage=None, RandomsCorrectionMethod="DLYD"), True, 0),
    ],
)
def test_what_the_two_attributes_say_together(name: str, given: Header, answer: bool | None, conflicts: int) -> None:
    found = corrections_of([given] * 2)
    assert getattr(found, name) is answer
    assert len([line for line in found.conflicts if line.startswith(f"{name}: ")]) == conflicts


@pytest.mark.parametrize("said", ["unknown", "Unknown", " N/A ", "other", "UNSPECIFIED"])
def test_a_method_that_says_nothing_leaves_it_to_the_list(said: str) -> None:
    found = corrections_of([lacking("ATTN", AttenuationCorrectionMethod=said)])
    assert (found.attenuation, found.conflicts) == (False, ())


@pytest.mark.parametrize("other", [lacking("ATTN"), header(AttenuationCorrectionMethod="NONE")])
def test_slices_that_differ_are_no_answer(other: Header) -> None:
    found = corrections_of([header(), other])
    assert (found.attenuation, found.scatter) == (None, True)
    assert found.conflicts == ("attenuation: slices differ in Corrected Image (0028,0051) or (0054,1101)",)


# Texts


@pytest.mark.parametrize(
    "words",
    [
        "PET NAC",
        "WB_NAC",
        "PET-NAC-3D",
        "TORSO 3D NAC 4mm",
        "no AC",
        "NoAC",
        "Non-AC",
        "PET w/o AC",
        "PET without AC",
        "uncorrected",
        "PET uncorr",
        "no attenuation correction",
        "non attenuation corrected",
        "PET AC off",
        "ohne Schwächungskorrektur",
        "ohne Schwaechungskorrektur",
        "nicht schwächungskorrigiert",
        "PET unkorrigiert",
        "PET ohne AC",
        "PET non corrigée",
        "sans correction d'atténuation",
        "senza correzione",
        "sin corrección",
        "sem correção",
        "no corregida",
        "zonder AC",
        "niet gecorrigeerd",
        "NAC no scatter",
    ],
)
def test_texts_that_say_not_corrected(words: str) -> None:
    assert text_says_corrected(words) is False
    found = corrections_of([header(SeriesDescription=words)])
    assert found.attenuation is None
    assert found.conflicts == (
        "attenuation: series description says not attenuation-corrected, the header's attributes say corrected",
    )
    assert is_attenuation_corrected([lacking("ATTN", SeriesDescription=words)]) is False


@pytest.mark.parametrize(
    "words",
    [
        "PET AC",
        "WB CTAC 3mm",
        "pet_wb_ac",
        "MRAC",
        "PET (AC)",
        "Attenuation Corrected",
        "ATTN CORR",
        "mit Schwächungskorrektur",
    ],
)
def test_texts_that_say_corrected(words: str) -> None:
    assert text_says_corrected(words) is True
    assert corrections_of([header(SeriesDescription=words)]).conflicts == ()
    found = corrections_of([lacking("ATTN", SeriesDescription=words)])
    assert found.attenuation is None
    assert found.conflicts == (
        "attenuation: series description says attenuation-corrected, the header's attributes say not corrected",
    )


@pytest.mark.parametrize(
    "words",
    [
        "",
        "PET WB",
        "AC/NAC",
        "Ac-225 PSMA",
        "225Ac",
        "cardiac",
        "FACE",
        "NACHT",
        "motion uncorrected",
        "TAC",
        "No Scatter Correction",
        "no cardiac",
        "Vac",
        "PET 3D 2i24s",
    ],
)
def test_texts_that_say_neither(words: str) -> None:
    assert text_says_corrected(words) is None
    assert is_attenuation_corrected([header(SeriesDescription=words)]) is True
    assert is_attenuation_corrected([lacking("ATTN", SeriesDescription=words)]) is False


def test_image_type_may_veto() -> None:
    found = corrections_of([header(ImageType=["ORIGINAL", "PRIMARY", "NAC"])])
    assert found.attenuation is None
    assert found.conflicts[0].startswith("attenuation: image type says not")
    assert "attenuation: image type says not attenuation-corrected" in found.evidence


def test_a_protocol_makes_both_reconstructions() -> None:
    assert is_attenuation_corrected([lacking("ATTN", ProtocolName="PET CTAC WB")]) is False
    assert is_attenuation_corrected([header(ProtocolName="PET NAC")]) is None
    assert is_attenuation_corrected([header(ProtocolName="PET NAC", SeriesDescription="PET AC")]) is True
    assert is_attenuation_corrected([header(ProtocolName="AC and NAC")]) is True


def test_text_never_makes_an_answer() -> None:
    found = corrections_of([header(CorrectedImage=None, SeriesDescription="PET AC")])
    assert (found.attenuation, found.conflicts) == (None, ())
    assert is_attenuation_corrected([header(CorrectedImage=None, SeriesDescription="NAC")]) is None


def test_no_line_repeats_what_people_typed() -> None:
    given = header(SeriesDescription="MUELLER NAC", AttenuationCorrectionMethod="none for Mueller")
    found = corrections_of([given])
    assert not re.search("mueller", " ".join(found.evidence + found.conflicts), re.IGNORECASE)


def test_of_a_text_256_characters_count() -> None:
    assert text_says_corrected("." * 253 + "NAC") is False
    assert text_says_corrected("." * 254 + "NAC") is None


@pytest.mark.parametrize("piece", ["non ", "no ac ", "sans corr", "un korr", "at", "nicht schwachungs ", "a c "])
def test_long_texts_take_no_time(piece: str) -> None:
    started = time.perf_counter()
    text_says_corrected(piece * 5000)
    assert time.perf_counter() - started < 0.05


def test_odd_values_do_no_harm() -> None:
    for odd in (None, 3, [], [None], [3], "ATTN", {"a": 1}):
        given = dict.fromkeys(
            ("CorrectedImage", "AttenuationCorrectionMethod", "ImageType", "SeriesDescription", "DecayCorrection"), odd
        )
        assert isinstance(corrections_of([given]), corrections.Corrections)
