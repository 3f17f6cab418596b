"""What bodies are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from engines.simulation.shapes import Shape


class Tissue(IntEnum):
    """What a voxel is made of."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    SKIN = 3
    LUNG = 4
    LUNG_VESSEL = 5
    AIRWAY = 6
    BLOOD = 7
    MYOCARDIUM = 8
    LEFT_VENTRICLE = 9
    RIGHT_VENTRICLE = 10
    LIVER = 11
    SPLEEN = 12
    KIDNEY = 13
    RENAL_PELVIS = 14
    STOMACH = 15
    BOWEL = 16
    BOWEL_GAS = 17
    PANCREAS = 18
    BLADDER = 19
    PROSTATE = 20
    UTERUS = 21
    GALLBLADDER = 22
    CORTICAL_BONE = 23
    MARROW = 24
    SPINAL_CORD = 25
    GREY_MATTER = 26
    WHITE_MATTER = 27
    CEREBELLUM = 28
    EYE = 29
    PAROTID = 30
    SUBMANDIBULAR = 31
    LACRIMAL = 32
    THYROID = 33
    TONSIL = 34
    VOCAL_MUSCLE = 35
    ADRENAL = 36
    PROSTHESIS = 37
    RIGHT_HEART_WALL = 38
    BREAST = 39
    CSF = 40
    FATTY_MARROW = 41
    CARTILAGE = 42
    COLON = 43
    DUODENUM = 44
    TESTIS = 45


@dataclass(frozen=True)
class Painted:
    """A shape and what it is filled with.

    tissues : (distance outside the surface [mm], tissue), outermost first; a thin skin is ((3.0, SKIN), (0.0, FAT))
    rough_mm, rough_length_mm : unevenness of the surface, standard deviation, and how fast it changes
    mirrored : the unevenness is the same left and right
    anywhere : may also fill air outside the body; `over` : otherwise only these tissues, None = all but air and skin
    """

    tissues: tuple[tuple[float, Tissue], ...]
    shape: Shape
    rough_mm: float = 0.0
    rough_length_mm: float = 22.0
    mirrored: bool = False
    anywhere: bool = False
    over: frozenset[Tissue] | None = None


def filled(tissue: Tissue, shape: Shape, rough_mm: float = 0.0) -> Painted:
    """A shape of one tissue."""
    return Painted(((0.0, tissue),), shape, rough_mm)
