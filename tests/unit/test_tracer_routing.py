"""A series whose header contradicts itself about the tracer is held by every rule that asks for the tracer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.load import parse_rules
from daemon.route import Decision, decide
from dicom_io.tracer import resolve

FDG_CODE = {"CodeValue": "35321007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Fluorodeoxyglucose F^18^"}


def judge(asked: Any, item: dict[str, Any], description: str = "") -> Decision:
    """What a rule that asks for this tracer decides about a study of one settled PET series."""
    found = resolve([item], [description])
    facts = {
        "id": 1, "received": "2026-03-02T09:40:00+00:00", "modality": "PT", "kind": "static", "complete": True,
        "tracer": found.tracer, "radionuclide": found.radionuclide, "tracer_confidence": found.confidence,
    }  # fmt: skip
    rule = {"name": "r", "engine": "e", "when": {"tracer": asked}, "inputs": {"pet": {"modality": "PT"}}}
    (decision,) = decide(parse_rules(json.dumps([rule]), destinations=[]), {"series": [facts], "settled": True})
    return decision


CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    ({"Radiopharmaceutical": "FDG", "RadionuclideHalfLife": 4057.7}, ""),
    ({"Radiopharmaceutical": "FDG", "RadionuclideHalfLife": 109.8}, ""),
    ({"Radiopharmaceutical": "PSMA-1007", "RadiopharmaceuticalCodeSequence": [FDG_CODE]}, ""),
    ({"Radiopharmaceutical": "FDG and PSMA-1007", "RadionuclideHalfLife": 6586.2}, ""),
    ({"Radiopharmaceutical": "FDG", "RadionuclideHalfLife": 6586.2}, "PET PSMA-1007 WB"),
]


@pytest.mark.parametrize(("item", "description"), CONTRADICTORY, ids=str)
@pytest.mark.parametrize(
    "asked", ["FDG", "PSMA-1007", ["FDG", "NaF"], {"not": "FDG"}, {"not": ["NaF"]}, {"matches": "FDG"}], ids=str
)
def test_a_contradiction_holds_the_job(asked: Any, item: dict[str, Any], description: str) -> None:
    decision = judge(asked, item, description)
    assert (decision.verdict.value, decision.pending) == ("unknown", False)
    assert decision.inputs == ({"pet": 1},)
    assert decision.reason.startswith("unknown: pet.tracer ")


@pytest.mark.parametrize(
    ("asked", "verdict"), [("FDG", "yes"), ("PSMA-1007", "no"), ({"not": "FDG"}, "no"), ({"matches": "^F"}, "yes")]
)
def test_without_the_contradiction_the_same_rules_know(asked: Any, verdict: str) -> None:
    item = {"Radiopharmaceutical": "FDG", "RadionuclideHalfLife": 6586.2}
    assert judge(asked, item, "PET FDG WB").verdict.value == verdict


def test_a_tracer_that_is_not_told_is_held_too() -> None:
    assert judge("FDG", {"RadionuclideHalfLife": 6586.2}, "PET WB").verdict.value == "unknown"
    assert judge("FDG", {"Radiopharmaceutical": "Solution"}, "PET FDG WB").verdict.value == "unknown"
    assert judge("choline", {"Radiopharmaceutical": "choline"}).verdict.value == "unknown"
