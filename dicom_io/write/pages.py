"""Pages for people: a PET as projections with what was found drawn on it, and the table beside it.

Arrays in, figure out: nothing here reads DICOM, files or a clock. Projections show the patient upright, facing us
(coronal, the patient's right on the left of the page) and from the left (sagittal, anterior on the left), in true
proportions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from engines.contract import Affine, FloatArray, Volume

Colour = tuple[float, float, float]

BANNER = "RESEARCH USE ONLY  ·  not for diagnosis  ·  preliminary result of an algorithm, not verified by a physician"
WIDTH_IN, HEIGHT_IN, DPI = 14.0, 9.0, 110
IMAGES_IN = (0.35, 1.15, 8.1, 6.6)
"""Box of the projections: left, bottom, width, height [inch]."""
TEXT_IN = (8.85, 0.55, 4.8, 7.35)
"""Box of the table and the notes."""
MARGIN_MM = 25.0
TAG_MM = 46.0
"""Room beside a projection for the numbers of the regions."""
BODY_SHARE = 0.04
"""Part of the grey scale above which a projection shows body; the page is cropped to it."""
ROWS_MAX = 20
TAGS_MAX = 24
NOTE_CHARACTERS = 70
LESION_COLUMNS = ("No.", "MTV\n[mL]", "SUVmax\n[g/mL]", "SUVmean\n[g/mL]", "SUVpeak\n[g/mL]", "TLG\n[g]")
INK, GREY, ALARM = "#1a1a1a", "#6b6b6b", "#9b1c1c"


@dataclass(frozen=True, slots=True)
class Region:
    """A labelled region and its line in the table.

    label : its value in the label array, 0 where it is not drawn; colour : red, green, blue, each 0 … 1
    cells : one text per column of the page
    """

    label: int
    colour: Colour
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What one page says about one PET.

    facts : short lines under the title; headline : the result in one line
    labels : integer (z, y, x) on the grid of the PET, None where nothing was found
    window, unit : the grey scale from white to black, and what its numbers are
    totals : last line of the table, one text per column; warnings : what a reader must not overlook
    """

    title: str
    facts: tuple[str, ...]
    headline: str
    pet: Volume
    labels: NDArray[np.uint16] | None
    columns: tuple[str, ...]
    regions: tuple[Region, ...]
    notes: tuple[str, ...]
    window: tuple[float, float]
    unit: str
    totals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Projection:
    """One view of the body: what is shown, and which way it faces.

    axis : the axis of an upright array that is looked along
    letters : patient sides at the left and right edge
    """

    name: str
    axis: int
    letters: tuple[str, str]


CORONAL = Projection("coronal", 1, ("R", "L"))
SAGITTAL = Projection("sagittal", 2, ("A", "P"))


def upright(array: NDArray[Any], affine: Affine) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """An array turned so that its axes run head → feet, anterior → posterior, right → left, and its spacing [mm].

    array : (z, y, x) of any orientation; oblique grids are turned to the nearest axes, nothing is resampled
    """
    directions = affine[:3, :3]
    spacing = np.linalg.norm(directions, axis=0)
    wanted = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # towards feet, posterior, left in LPS
    cosines = wanted @ (directions / spacing)
    order = max(permutations(range(3)), key=lambda axes: float(np.prod(np.abs(cosines[range(3), axes]))))
    backward = tuple(k for k in range(3) if cosines[k, order[k]] < 0.0)
    return np.flip(np.transpose(array, order), backward), spacing[list(order)]


def study_page(page: Page) -> Figure:
    """The page as a figure of 14 × 9 inches: coronal and sagittal projection, table, notes, banner."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, facecolor="white")
    _draw_frame(figure, page)
    pet, spacing_mm = upright(page.pet.array, page.pet.affine)
    labels = None if page.labels is None else upright(page.labels, page.pet.affine)[0]
    views = [_view(projection, pet, labels, spacing_mm) for projection in (CORONAL, SAGITTAL)]
    views = [_cropped(view, page.window) for view in views]
    for view, axes in zip(views, _place(figure, views), strict=True):
        _draw_view(axes, view, page)
    _draw_grey_scale(figure, page)
    _draw_text(figure, page)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG without the time and the program in it: equal pages are equal files."""
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})


@dataclass(frozen=True, slots=True)
class _View:
    """A projection of one volume: maximum along the line of sight, and per label where it lies.

    image : (rows from head to feet, columns); pixel_mm : height and width of a pixel
    """

    projection: Projection
    image: FloatArray
    shadows: dict[int, NDArray[np.bool_]]
    pixel_mm: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.image.shape[0] * self.pixel_mm[0], self.image.shape[1] * self.pixel_mm[1]


def _view(
    projection: Projection, pet: FloatArray, labels: NDArray[Any] | None, spacing_mm: NDArray[np.float64]
) -> _View:
    other = 3 - projection.axis  # of axes 1 and 2, the one that is not looked along
    shadows = {}
    if labels is not None:
        boxes = {label: box for label, box in enumerate(find_objects(labels), start=1) if box is not None}
        shadows = {label: _shadow(labels, label, box, projection.axis) for label, box in boxes.items()}
    return _View(projection, pet.max(axis=projection.axis), shadows, (float(spacing_mm[0]), float(spacing_mm[other])))


def _shadow(labels: NDArray[Any], label: int, box: tuple[slice, ...], axis: int) -> NDArray[np.bool_]:
    """Where a region lies along the line of sight, bool (rows, columns); looks at its box alone."""
    seen = [k for k in range(3) if k != axis]
    shadow = np.zeros([labels.shape[k] for k in seen], bool)
    shadow[tuple(box[k] for k in seen)] = np.any(labels[box] == label, axis=axis)
    return shadow


def _cropped(view: _View, window: tuple[float, float]) -> _View:
    """Without the columns beside body and regions; the rows stay, so that both views keep the same height."""
    level = window[0] + BODY_SHARE * (window[1] - window[0])
    wanted = np.count_nonzero(view.image > level, axis=0) > 1
    for shadow in view.shadows.values():
        wanted |= shadow.any(axis=0)
    columns = np.flatnonzero(wanted)
    if not columns.size:
        return view
    margin = round(MARGIN_MM / view.pixel_mm[1])
    keep = slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin)
    shadows = {label: shadow[:, keep] for label, shadow in view.shadows.items()}
    return _View(view.projection, view.image[:, keep], shadows, view.pixel_mm)


def _place(figure: Figure, views: Sequence[_View]) -> list[Axes]:
    """Axes side by side in millimetres, all on one scale, centred in the box of the projections."""
    left, bottom, width, height = IMAGES_IN
    widths_mm = [view.size_mm[1] + 2.0 * TAG_MM for view in views]
    height_mm = max(view.size_mm[0] for view in views)
    inch_per_mm = min(height / height_mm, width / sum(widths_mm))
    x = left + (width - sum(widths_mm) * inch_per_mm) / 2.0
    placed = []
    for view, width_mm in zip(views, widths_mm, strict=True):
        tall = view.size_mm[0] * inch_per_mm
        box = (x, bottom + (height - tall) / 2.0, width_mm * inch_per_mm, tall)
        axes = figure.add_axes(_share(box))
        axes.set_xlim(-TAG_MM, view.size_mm[1] + TAG_MM)
        axes.set_ylim(view.size_mm[0], 0.0)
        axes.set_axis_off()
        placed.append(axes)
        x += width_mm * inch_per_mm
    return placed


def _share(box_in: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, bottom, width, height = box_in
    return left / WIDTH_IN, bottom / HEIGHT_IN, width / WIDTH_IN, height / HEIGHT_IN


def _draw_view(axes: Axes, view: _View, page: Page) -> None:
    tall, wide = view.size_mm
    low, high = page.window
    axes.imshow(
        view.image,
        cmap="gray_r",
        vmin=low,
        vmax=high,
        extent=(0.0, wide, tall, 0.0),
        interpolation="bilinear",
        aspect="auto",  # the axes have the proportions of the body already
    )
    axes.add_patch(Rectangle((0.0, 0.0), wide, tall, fill=False, edgecolor="#c8c8c8", linewidth=0.6, clip_on=False))
    colours = {region.label: region.colour for region in page.regions}
    for label, shadow in view.shadows.items():
        _draw_outline(axes, shadow, view.pixel_mm, colours.get(label, (0.8, 0.1, 0.1)))
    _draw_tags(axes, view, colours)
    left, right = view.projection.letters
    sides = (
        (left, 10.0, tall / 2.0),
        (right, wide - 10.0, tall / 2.0),
        ("H", wide / 2.0, -14.0),
        ("F", wide / 2.0, tall + 14.0),
    )
    for letter, x, y in sides:
        axes.text(x, y, letter, ha="center", va="center", fontsize=10, weight="bold", color=GREY)
    axes.plot([8.0, 108.0], [tall - 9.0, tall - 9.0], color=INK, linewidth=1.6, solid_capstyle="butt")
    axes.text(58.0, tall - 14.0, "10 cm", ha="center", va="bottom", fontsize=7.5, color=INK)


def _draw_outline(axes: Axes, shadow: NDArray[np.bool_], pixel_mm: tuple[float, float], colour: Colour) -> None:
    """Fill and outline of a region's shadow, in millimetres of the view."""
    padded = np.pad(shadow, 1).astype(np.float32)
    rows, columns = (np.flatnonzero(padded.any(axis=axis)) for axis in (1, 0))
    rows, columns = (np.arange(line[0] - 1, line[-1] + 2) for line in (rows, columns))
    x, y = (columns - 0.5) * pixel_mm[1], (rows - 0.5) * pixel_mm[0]
    part = padded[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    axes.contourf(x, y, part, levels=[0.5, 1.5], colors=[colour], alpha=0.28)
    axes.contour(x, y, part, levels=[0.5], colors=[colour], linewidths=1.3)


def _draw_tags(axes: Axes, view: _View, colours: dict[int, Colour]) -> None:
    """The numbers of the regions, in the margin on their side of the body, each with a line to its region."""
    tall, wide = view.size_mm
    largest = sorted(view.shadows, key=lambda label: -int(np.count_nonzero(view.shadows[label])))[:TAGS_MAX]
    for on_the_right in (False, True):
        ends = {label: _line_end_mm(view, label, on_the_right=on_the_right) for label in largest}
        side = sorted((end[0], end[1], label) for label, end in ends.items() if end is not None)
        levels = spread([y for y, _, _ in side], gap=22.0, low=12.0, high=tall - 12.0)
        for level, (y, x, label) in zip(levels, side, strict=True):
            tag_x = wide + TAG_MM / 2.0 if on_the_right else -TAG_MM / 2.0
            axes.plot([tag_x, x], [level, y], color=colours.get(label, INK), linewidth=0.7, alpha=0.9)
            axes.text(
                tag_x,
                level,
                str(label),
                ha="center",
                va="center",
                fontsize=9,
                weight="bold",
                color=INK,
                path_effects=[withStroke(linewidth=4.0, foreground="white")],
            )


def _line_end_mm(view: _View, label: int, *, on_the_right: bool) -> tuple[float, float] | None:
    """Where the line to a region ends: at its border, level with its centre; None where that is on the other side.

    Returns
    -------
    (from the top, from the left) [mm]
    """
    rows, columns = np.nonzero(view.shadows[label])
    if (columns.mean() + 0.5 > view.image.shape[1] / 2.0) is not np.bool_(on_the_right):
        return None
    row = rows[np.argmin(np.abs(rows - rows.mean()))]
    across = columns[rows == row]
    column = across.max() + 1 if on_the_right else across.min()
    return float((row + 0.5) * view.pixel_mm[0]), float(column * view.pixel_mm[1])


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Positions as near to the wanted ones as a smallest distance allows, in the same order, within low … high.

    wanted : ascending; where they cannot all fit they are put at even distances
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    placed: list[float] = []
    for position in wanted:
        placed.append(max(position, low, placed[-1] + gap if placed else low))
    limit = high
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - gap
    return placed


def _draw_frame(figure: Figure, page: Page) -> None:
    """Banner, title and the facts below it."""
    band = Rectangle((0.0, 1.0 - 0.3 / HEIGHT_IN), 1.0, 0.3 / HEIGHT_IN, facecolor=ALARM, transform=figure.transFigure)
    figure.add_artist(band)
    middle = 1.0 - 0.15 / HEIGHT_IN
    figure.text(0.5, middle, BANNER, ha="center", va="center", color="white", fontsize=10, weight="bold")
    left = IMAGES_IN[0] / WIDTH_IN
    figure.text(left, 1.0 - 0.62 / HEIGHT_IN, page.title, va="center", fontsize=15, weight="bold", color=INK)
    figure.text(left, 1.0 - 0.9 / HEIGHT_IN, "  ·  ".join(page.facts), va="center", fontsize=9.5, color=GREY)


def _draw_grey_scale(figure: Figure, page: Page) -> None:
    """What white and black mean."""
    low, high = page.window
    axes = figure.add_axes(_share((IMAGES_IN[0] + IMAGES_IN[2] / 2.0 - 1.6, 0.55, 3.2, 0.13)))
    axes.imshow(np.linspace(low, high, 256)[None, :], cmap="gray_r", extent=(low, high, 0.0, 1.0), aspect="auto")
    axes.set_yticks([])
    axes.tick_params(labelsize=8, length=2.5, colors=GREY)
    axes.set_xlabel(f"{page.unit}, maximum along the line of sight", fontsize=8.5, color=GREY, labelpad=2)


def _draw_text(figure: Figure, page: Page) -> None:
    """Headline, table and notes, from the top of the text box downwards in inches."""
    axes = figure.add_axes(_share(TEXT_IN))
    axes.set_xlim(0.0, TEXT_IN[2])
    axes.set_ylim(-TEXT_IN[3], 0.0)
    axes.set_axis_off()
    y = -0.1
    for line in textwrap.wrap(page.headline, 52):
        axes.text(0.0, y, line, va="top", fontsize=12, weight="bold", color=INK)
        y -= 0.27
    y -= 0.12
    if page.regions:
        y = _draw_table(axes, page, y)
    warnings = [(f"Warning: {warning}", ALARM) for warning in page.warnings]
    for note, colour in (*warnings, *((note, INK) for note in page.notes)):
        for line in textwrap.wrap(note, NOTE_CHARACTERS, subsequent_indent="  "):
            axes.text(0.0, y, line, va="top", fontsize=9, color=colour)
            y -= 0.185
        y -= 0.07


def _draw_table(axes: Axes, page: Page, y: float) -> float:
    """The regions, one line each; returns where the next thing may begin."""
    edges = np.linspace(0.75, TEXT_IN[2], len(page.columns))
    for x, word in zip(edges, page.columns, strict=True):
        axes.text(x, y - 0.31, word, ha="right", va="bottom", fontsize=8.5, weight="bold", color=GREY)
    y -= 0.42
    axes.plot([0.0, TEXT_IN[2]], [y + 0.07, y + 0.07], color=GREY, linewidth=0.8)
    for region in page.regions[:ROWS_MAX]:
        if region.label:
            axes.add_patch(Rectangle((0.02, y - 0.135), 0.15, 0.12, facecolor=region.colour, edgecolor="none"))
        for x, word in zip(edges, region.cells, strict=True):
            axes.text(x, y, word, ha="right", va="top", fontsize=9.5, color=INK)
        y -= 0.215
    if len(page.regions) > ROWS_MAX:
        rest = len(page.regions) - ROWS_MAX
        axes.text(0.0, y, f"and {rest} more", va="top", fontsize=9, style="italic", color=GREY)
        y -= 0.215
    axes.plot([0.0, TEXT_IN[2]], [y + 0.02, y + 0.02], color=GREY, linewidth=0.8)
    if page.totals:
        y -= 0.06
        for x, word in zip(edges, page.totals, strict=True):
            axes.text(x, y, word, ha="right", va="top", fontsize=9.5, weight="bold", color=INK)
        y -= 0.215
    return y - 0.15
