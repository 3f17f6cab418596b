"""Who is examined, and the outline that makes the weight right.

Places are in reference millimetres: an adult of 1.70 m, x to the left, y to the back, z up from below the hips (0) to
the vertex (about 900). `Person.scale` turns them into this person's; the head keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.simulation.shapes import Blend, Column, Ellipsoid, FloatArray, Offset, Point, Shape, Tube

REFERENCE_HEIGHT_M = 1.70
REFERENCE_BMI = 22.5
NECK_MM = 690.0
"""Above it a body is no longer scaled by height and girth."""
BOTTOM_MM = -60.0
"""The lowest part of the thighs that is modelled, reference millimetres."""
COVERED_SHARE = 0.75
"""Share of the weight between vertex and upper thigh, arms included (segment masses: de Leva 1996, J Biomech 29:1223;
lower legs and feet 11 %, the lower half of the thighs 14 %)."""
LEAN_DENSITY, FAT_DENSITY = 1.07, 0.92
"""g/mL, muscle and bone together and adipose tissue (ICRP publication 89)."""
GAS_KG = 3.2
"""What lungs and bowel gas weigh less than muscle of their volume."""


@dataclass(frozen=True)
class Person:
    """An adult. `girth` multiplies trunk and organs across, `fat_mm` lies under the skin of the trunk."""

    sex: str
    height_m: float
    weight_kg: float
    arms_up: bool
    girth: float
    fat_mm: float
    hip_prosthesis: bool = False
    age_years: int = 60

    @classmethod
    def draw(cls, rng: np.random.Generator, *, obesity: float = 0.0, prostheses: float = 0.0) -> Person:
        """A random adult. obesity shifts the mean BMI [kg/m²], prostheses is the share with an artificial hip."""
        sex = str(rng.choice(["F", "M"]))
        height_m = round(float(np.clip(rng.normal(1.64 if sex == "F" else 1.77, 0.065), 1.45, 1.98)), 2)
        bmi = float(np.clip(rng.lognormal(np.log(25.5 + obesity), 0.15), 18.0, 42.0))
        stretch, arms, hip = rng.normal(1.0, 0.02), rng.random(), rng.random()
        person = cls.of(
            sex,
            height_m,
            round(bmi * height_m**2, 1),
            arms_up=bool(arms < 0.85 or bmi > 29.0),  # wide patients do not fit with arms at their side
            stretch=float(stretch),
        )
        age = int(np.clip(rng.normal(62.0, 12.0), 25, 88))
        return replace(person, hip_prosthesis=bool(hip < prostheses), age_years=age)

    @classmethod
    def of(cls, sex: str, height_m: float, weight_kg: float, *, arms_up: bool = True, stretch: float = 1.0) -> Person:
        """The person of this height whose outline weighs so much; `stretch` varies how much of it is not fat."""
        bmi = weight_kg / height_m**2
        girth = float((bmi / REFERENCE_BMI) ** 0.30 * stretch)
        person = cls(sex, height_m, weight_kg, arms_up, girth, 0.0)
        wanted = weight_kg * COVERED_SHARE
        low, high = 2.5, 110.0
        if outline_kg(replace(person, fat_mm=low)) > wanted:  # so lean that the muscles must be thinner
            girths = (0.6, girth)
            for _ in range(10):
                middle = sum(girths) / 2
                fits = outline_kg(replace(person, girth=middle, fat_mm=low)) <= wanted
                girths = (middle, girths[1]) if fits else (girths[0], middle)
            return replace(person, girth=girths[0], fat_mm=low)
        for _ in range(9):
            middle = (low + high) / 2
            low, high = (middle, high) if outline_kg(replace(person, fat_mm=middle)) < wanted else (low, middle)
        return replace(person, fat_mm=round((low + high) / 2, 1))

    @property
    def scale(self) -> Point:
        """Reference mm → this person's mm along x, y, z, below the neck. At equal BMI weight goes with height²."""
        tall = self.height_m / REFERENCE_HEIGHT_M
        across = self.girth * tall**0.5
        return across, across, tall

    @property
    def organ_size(self) -> float:
        """What organs are multiplied by in reference mm, so that their volume goes with the root of the body's."""
        across, deep, tall = self.scale
        return float((across * deep * tall) ** (-1 / 6))

    @property
    def vertex_mm(self) -> float:
        """The height of the top of the head in patient millimetres."""
        return NECK_MM * self.scale[2] + 912.0 - NECK_MM

    @property
    def lean_kg(self) -> float:
        """Lean body mass (Janmahasatian 2005, Clin Pharmacokinet 44:1051)."""
        bmi = self.weight_kg / self.height_m**2
        constant, slope = (8780.0, 244.0) if self.sex == "F" else (6680.0, 216.0)
        return 9270.0 * self.weight_kg / (constant + slope * bmi)


@dataclass(frozen=True)
class Frame:
    """Patient millimetres ↔ reference millimetres of a person, before any bending."""

    person: Person

    def upright(self, z: FloatArray) -> FloatArray:
        """Reference height of patient heights."""
        tall = np.float32(self.person.scale[2])
        return np.where(z < NECK_MM * tall, z / tall, z - np.float32(NECK_MM * (tall - 1.0))).astype(np.float32)

    def across(self, reference_z: FloatArray) -> FloatArray:
        """Patient mm per reference mm across the body at reference heights: the head does not grow with the belly."""
        headness = np.clip((np.asarray(reference_z, np.float32) - 630.0) / 90.0, 0.0, 1.0)
        headness = headness * headness * (3 - 2 * headness)
        return np.asarray(self.person.scale[0] * (1 - headness) + headness, np.float32)

    def place(self, point: Point) -> Point:
        """A reference place in patient mm."""
        x, y, z = point
        wide, tall = float(self.across(np.asarray(z, np.float32))), self.person.scale[2]
        return x * wide, y * wide, z * tall if z < NECK_MM else z + NECK_MM * (tall - 1.0)


def outline(person: Person) -> tuple[list[Shape], list[Shape]]:
    """What is inside the skin, and muscle with all that it holds: the parts of each, to be blended."""
    fat, trunk = person.fat_mm, muscles(person)
    belly = Ellipsoid((0, -42 - 0.35 * fat, 315), (112 + 0.5 * fat, 54 + 0.75 * fat, 112))
    seat = [Ellipsoid((s * 74, 52, 128), (78, 58, 84)) for s in (-1, 1)]
    outer: list[Shape] = [replace(trunk, grown=0.8 * fat), Offset(belly, 0.0), *(Offset(part, fat) for part in seat)]
    inner: list[Shape] = [trunk, *seat]
    for s in (-1, 1):
        thigh = ((s * 84, 8, BOTTOM_MM - 30), (s * 86, 8, 40), (s * 90, 8, 150)), (66, 77, 82)
        arm, radii = arm_of(person, s)
        flank = (s * 132, 14, 600), (s * 150, 12, 640)  # over the shoulder
        for (points, thick), padding in ((thigh, 0.65), ((arm, radii), 0.35), ((flank, (48, 46)), 0.5)):
            inner.append(Tube(points, thick))
            outer.append(Tube(points, tuple(r + padding * fat for r in thick)))
    return outer, inner


def arm_of(person: Person, s: int) -> tuple[tuple[Point, ...], tuple[float, ...]]:
    """Shoulder, elbow, wrist, hand of one side, and how thick the muscles are there."""
    slim = 0.86 if person.sex == "F" else 1.0
    near = 1.0 / max(person.scale[0], 1.0) ** 1.5  # wide shoulders, but the field of view is as wide as ever
    if person.arms_up:
        points: list[Point] = [(s * 168, 18, 618), (s * 186 * near, 0, 695), (s * 184, -14, 800), (s * 112, -40, 900)]
        radii = [48.0, 44.0, 37.0, 26.0]
    else:
        points = [(s * 170, 18, 612), (s * 198, 34, 500), (s * 208, 26, 360), (s * 172, -52, 180), (s * 150, -88, 110)]
        radii = [46.0, 42.0, 36.0, 27.0, 22.0]
    return tuple(points), tuple(slim * r for r in radii)


def muscles(person: Person) -> Column:
    """Muscle of the trunk and what it holds, from the groin to the neck."""
    woman = person.sex == "F"
    hips, waist = (164.0, 124.0) if woman else (158.0, 138.0)
    chest, shoulders = (140.0, 150.0) if woman else (156.0, 176.0)
    return Column(
        heights=(105, 150, 200, 260, 340, 430, 520, 590, 630, 652, 676, 720),
        semi_axes=(
            (112, 82), (hips, 100), (hips, 104), (hips - 14, 98), (waist + 2, 92), (chest - 6, 104), (chest, 112),
            (chest, 106), (shoulders, 88), (shoulders - 46, 70), (74, 60), (57, 58),
        ),
        centres=(
            (0, 10), (0, 10), (0, 8), (0, 2), (0, 0), (0, 0), (0, 0), (0, 4), (0, 12), (0, 16), (0, 14), (0, 10),
        ),
    )  # fmt: skip


def outline_kg(person: Person, *, step_mm: float = 18.0) -> float:
    """Mass of the modelled part of a body, from its outline alone."""
    z = np.arange(BOTTOM_MM, NECK_MM, step_mm, dtype=np.float32)[:, None, None]
    side = np.arange(-340.0, 340.0, step_mm, dtype=np.float32)
    outer, inner = (_inside(parts, side, z) for parts in outline(person))
    layer = (person.scale[0] * person.scale[1] * person.scale[2] * step_mm**3) * 1e-6
    lean, fat = inner * layer, (outer - inner) * layer
    arms_above = 3.1 if person.arms_up else 0.0
    return lean * LEAN_DENSITY + fat * FAT_DENSITY - GAS_KG + HEAD_KG + arms_above * person.scale[0] ** 2


def _inside(parts: Sequence[Shape], side: FloatArray, z: FloatArray) -> int:
    return int(np.count_nonzero(Blend(parts, 16.0).depth(side[None, None, :], side[None, :, None], z) < 0.0))


HEAD_KG = 5.6
"""Above the neck (de Leva 1996: head and neck 6.9 %, of which the neck is modelled with the trunk)."""
