"""The plate of simulated patients, every one another random person, examined as a hospital does it.

    python -m benchmarks.plate [--site small] [--out docs/img/simulated.png]

From above: maximum intensity projections from the front and the side, and a coronal slice. Low counts and missing
corrections stand beside their reference. Of Rb-82: blood, then myocardium, then the true flow, each as a transverse and
a coronal slice through the heart.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

from engines.contract import Volume
from engines.simulation.study import SITES, Kind, Study, Tracer, simulate

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes


@dataclass(frozen=True)
class Examination:
    """title; kind and seed; window from 0 to `top` [SUV]; tracer of `psma`; share of the counts of `lowcount`"""

    title: str
    kind: Kind
    seed: int
    top: float = 7.0
    tracer: Tracer | None = None
    share: float | None = None


STATIC = (
    Examination("FDG", "fdg", 101),
    Examination("FDG", "fdg", 102),
    Examination("FDG", "fdg", 103),
    Examination("Ga-68 PSMA-11", "psma", 104, 15.0, "PSMA-11"),
    Examination("F-18 PSMA-1007", "psma", 105, 15.0, "PSMA-1007"),
    Examination("FDG, 5 % of the counts", "lowcount", 106, share=0.05),
    Examination("FDG, not corrected", "nac", 107),
)
RUBIDIUM = Examination("Rb-82, stress", "rb82-stress", 108)
SLICE_TOP = 0.6
"""Window of a slice relative to that of a projection."""
BLOOD_S, MYOCARDIUM_S, FLOW_TOP = (20.0, 60.0), (120.0, 600.0), 4.0
"""Seconds of the scan in which the tracer is in the blood, and then in the muscle; window of the flow [mL/min/g]."""
HALF_MM = 130.0
"""What is shown of a chest to either side of the heart."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and its window from 0 to top."""

    title: str
    volume: Volume
    top: float

    def draw(self, rows: list[Axes]) -> None:
        """Projections from the front and the side, and a coronal slice."""
        array, (tall, wide) = self.volume.array, steps_mm(self.volume.affine)
        middle = array.shape[1] // 2
        views = ((array.max(axis=1), 1.0), (array.max(axis=2), 1.0), (array[:, middle], SLICE_TOP))
        for axes, (view, darker) in zip(rows, views, strict=True):
            show(axes, view, darker * self.top, tall / wide)
        rows[0].set_title(self.title, fontsize=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", choices=sorted(SITES), default="small")
    parser.add_argument("--out", type=Path, default=Path("docs/img/simulated.png"))
    given = parser.parse_args()
    drawn = [picture for examination in STATIC for picture in pictures(examination, given.site)]
    rubidium = simulate(RUBIDIUM.kind, RUBIDIUM.seed, given.site, with_reference=False)
    figure = plt.figure(figsize=(2.2 * (len(drawn) + 1.2), 13.2))
    grid = figure.add_gridspec(
        3, len(drawn) + 1, left=0, right=1, bottom=0, top=0.95, wspace=0.01, hspace=0.07,
        width_ratios=[1.0] * len(drawn) + [1.2],
    )  # fmt: skip
    for column, picture in enumerate(drawn):
        picture.draw([figure.add_subplot(grid[row, column]) for row in range(3)])
    for row, (title, array, top, colours) in enumerate(heart(rubidium)):
        cell = grid[row, len(drawn)].subgridspec(2, 1, hspace=0.02)
        rows = [figure.add_subplot(cell[part]) for part in range(2)]
        draw_heart(rows, array, rubidium, top, colours)
        rows[0].set_title(title, fontsize=9)
    figure.savefig(given.out, dpi=72)


def pictures(asked: Examination, site: str) -> Iterator[Picture]:
    """The PET of an examination, and its reference where that is another image."""
    study = simulate(asked.kind, asked.seed, site, share=asked.share, tracer=asked.tracer)
    pet, reference, who = study.acquisition.pet, study.reference, patient(study)
    assert pet is not None
    print(asked.title, who, flush=True)
    corrected = study.acquisition.attenuation_corrected
    yield Picture(f"{asked.title}\n{who}", pet, asked.top if corrected else uncorrected_top(pet.array))
    if isinstance(reference, Volume) and reference is not pet:
        yield Picture("the same patient: reference", reference, asked.top)


def patient(study: Study) -> str:
    """A line about who is examined."""
    a, lesions = study.acquisition, study.facts["lesions"]
    found = (
        f", {len(lesions)} lesion{'s' * (len(lesions) != 1)}" if isinstance(lesions, list) and a.dynamic is None else ""
    )
    return f"{a.sex} {a.height_m:.2f} m {a.weight_kg:.0f} kg{found}"


def uncorrected_top(array: np.ndarray) -> float:
    """Window of an image that is not to scale."""
    return float(np.percentile(array[array > 0.01 * array.max()], 99.3))


def heart(study: Study) -> Iterator[tuple[str, np.ndarray, float, str]]:
    """Title, array (z, y, x), window and colours of blood, myocardium and true flow."""
    dynamic = study.acquisition.dynamic
    assert dynamic is not None
    for title, (first, last) in (("blood", BLOOD_S), ("myocardium", MYOCARDIUM_S)):
        inside = (dynamic.frame_start_s >= first) & (dynamic.frame_start_s < last)
        mean = np.average(dynamic.array[inside], axis=0, weights=dynamic.frame_duration_s[inside])
        above = f"{RUBIDIUM.title}\n{patient(study)}\n" if title == "blood" else ""
        yield f"{above}{title}, from {first:.0f} s", mean, float(np.percentile(mean, 99.9)), "gray_r"
    yield f"true flow, 0 to {FLOW_TOP:.0f} mL/min/g", study.maps["mbf"], FLOW_TOP, "inferno"


def draw_heart(rows: list[Axes], array: np.ndarray, study: Study, top: float, colours: str) -> None:
    """A transverse and a coronal slice through the middle of the left ventricle's wall."""
    muscle = study.maps["mbf"] > 0.0
    z, y, x = (int(np.median(places)) for places in np.nonzero(muscle))
    tall, wide = steps_mm(study.organs.affine)
    reach = round(HALF_MM / wide)
    across = slice(max(x - reach, 0), x + reach)
    show(rows[0], array[z, max(y - reach, 0) : y + reach, across], top, 1.0, colours, origin="upper")
    show(rows[1], array[:, y, across], top, tall / wide, colours)


def steps_mm(affine: np.ndarray) -> tuple[float, float]:
    """Of a volume's voxels along z and x."""
    return float(affine[2, 0]), float(affine[0, 2])


def show(
    axes: Axes, view: np.ndarray, top: float, aspect: float, colours: str = "gray_r", *, origin: str = "lower"
) -> None:
    axes.imshow(view, cmap=colours, vmin=0.0, vmax=top, origin=origin, aspect=aspect, interpolation="bilinear")
    axes.axis("off")


if __name__ == "__main__":
    main()
