"""Headers of one PET series as `headers.read` gives them, for tests of what its numbers mean.

70 kg, 350 MBq of F-18 injected at 10:00, scanned one half-life (6586.2 s = 1:49:46.2) later: 70 000 g / 350 MBq = 2e-4
at the injection, 4e-4 at the scan. Frame Reference Time is T_ave = (1/λ)·ln(λT/(1 − e^−λT)) = 59.93685 s of the 120 s
frame, so it counts from the start of the acquisition, as Series Time does.
"""

from __future__ import annotations

from typing import Any

Header = dict[str, Any]
AT_INJECTION = 2e-4
"""70 000 g / 350 000 000 Bq."""
ONE_HALF_LIFE = 4e-4
"""70 000 g / (350 000 000 Bq · ½)."""


def pet(count: int = 2, **changes: Any) -> list[Header]:
    """`count` slices; keys of the radiopharmaceutical item may be given among the others, `...` takes a key away."""
    drug = {
        "RadionuclideTotalDose": 350e6,
        "RadionuclideHalfLife": 6586.2,
        "RadiopharmaceuticalStartTime": "100000",
        "RadiopharmaceuticalStartDateTime": "20260302100000",
        "Radiopharmaceutical": None,
        "RadionuclideCodeSequence": [{"CodeValue": "77004003", "CodingSchemeDesignator": "SCT"}],
    }
    header = {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "ATTN", "SCAT", "DECY"],
        "AttenuationCorrectionMethod": "measured",
        "RescaleSlope": 0.5,
        "RescaleIntercept": 0.0,
        "PatientWeight": 70.0,
        "PatientSize": 1.75,
        "PatientSex": "M",
        "SeriesDate": "20260302",
        "SeriesTime": "114946.2",
        "AcquisitionDate": "20260302",
        "AcquisitionTime": "114946.2",
        "ActualFrameDuration": 120000,
        "FrameReferenceTime": 59936.85,
    }
    inside = {key: value for key, value in changes.items() if key in drug}
    outside = {key: value for key, value in changes.items() if key not in drug}
    item = {key: value for key, value in {**drug, **inside}.items() if value is not ...}
    kept = {key: value for key, value in {**header, **outside}.items() if value is not ...}
    return [{"RadiopharmaceuticalInformationSequence": [dict(item)], **kept} for _ in range(count)]
