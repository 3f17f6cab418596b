"""The plate of simulated patients: maximum intensity projections from the front and the side, one column a
patient, and a coronal slice below.

    python -m benchmarks.plate [--preset small] [--out docs/img/simulated.png]

Every column is another random patient, measured and reconstructed with the counts of a clinical examination.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from engines.simulation import lesions
from engines.simulation.anatomy import Person, build, whole_body
from engines.simulation.measurement import measure, thin
from engines.simulation.reconstruction import reconstruct
from engines.simulation.scanners import METHODS, PRESETS
from engines.simulation.uptake import attenuation, hu_map, suv_map

mpl.use("Agg")
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Column:
    """title; tracer; seed; window [SUV]; share of the counts; whether attenuation and scatter are corrected for"""

    title: str
    tracer: str
    seed: int
    top: float
    share: float = 1.0
    corrected: bool = True


COLUMNS = (
    Column("FDG", "FDG", 101, 7.0),
    Column("FDG", "FDG", 102, 7.0),
    Column("FDG", "FDG", 103, 7.0),
    Column("Ga-68 PSMA-11", "PSMA-11", 104, 15.0),
    Column("Ga-68 PSMA-11", "PSMA-11", 105, 15.0),
    Column("F-18 PSMA-1007", "PSMA-1007", 106, 15.0),
    Column("FDG, 5 % of the counts", "FDG", 107, 7.0, share=0.05),
    Column("FDG, not corrected", "FDG", 108, 0.0, corrected=False),
)
BQ_PER_KG = {"FDG": 3.5e6 * 0.685, "PSMA-11": 2.0e6 * 0.542, "PSMA-1007": 4.0e6 * 0.685}
"""Injected, decayed for an hour."""
SECONDS = 120.0


def examine(column: Column, preset: str) -> tuple[np.ndarray, str, tuple[float, float]]:
    """Image (z, y, x) in SUV, a line about the patient, and steps (z, x) [mm]."""
    rng, scanner, method = np.random.default_rng(column.seed), PRESETS[preset], METHODS[preset]
    person = Person.draw(rng)
    while column.tracer != "FDG" and person.sex == "F":
        person = Person.draw(rng)
    pixels, step = 2 * scanner.geometry.pixels, scanner.geometry.pixel_mm / 2
    body = build(person, whole_body(person, (scanner.slice_mm / 2, step, step), pixels, multiple=2), rng)
    spots = lesions.place(body, column.tracer, rng)
    suv, labels = lesions.paint(spots, body, suv_map(body, column.tracer, rng))
    mu = attenuation(lesions.paint_hu(spots, labels, hu_map(body, rng)))
    bqml = np.float32(BQ_PER_KG[column.tracer] / 1000.0)
    counts = measure(suv * bqml, mu, scanner, SECONDS, rng)
    if column.share < 1.0:
        counts = thin(counts, column.share, rng)
    corrected = column.corrected
    image = reconstruct(counts, scanner, replace(method, attenuation=corrected, scatter=corrected)) / bqml
    text = f"{person.sex} {person.height_m:.2f} m {person.weight_kg:.0f} kg, {len(spots)} lesions"
    return image, text, (scanner.slice_mm, scanner.geometry.pixel_mm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--out", type=Path, default=Path("docs/img/simulated.png"))
    given = parser.parse_args()
    figure, axes = plt.subplots(3, len(COLUMNS), figsize=(2.4 * len(COLUMNS), 13.6))
    for number, column in enumerate(COLUMNS):
        image, text, (tall, wide) = examine(column, given.preset)
        top = column.top or float(np.percentile(image[image > 0.01 * image.max()], 99.3))
        middle = image.shape[1] // 2
        for row, (view, darker) in enumerate(
            ((image.max(axis=1), 1.0), (image.max(axis=2), 1.0), (image[:, middle], 0.6))
        ):
            axes[row, number].imshow(
                view, cmap="gray_r", vmin=0, vmax=darker * top, origin="lower", aspect=tall / wide,
                interpolation="bilinear",
            )  # fmt: skip
            axes[row, number].axis("off")
        axes[0, number].set_title(f"{column.title}\n{text}", fontsize=7)
        print(column.title, text, flush=True)
    figure.subplots_adjust(0, 0, 1, 0.96, 0.01, 0.01)
    figure.savefig(given.out, dpi=66)


if __name__ == "__main__":
    main()
