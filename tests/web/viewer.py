"""A reader at OHIF in headless Chromium: clicks as a person would, and looks at the screen.

What a person sees is read from the page and from pictures of it. Cornerstone, which draws in OHIF and offers itself to
scripts as a global, is asked for what a person does by dragging (to a slice, to a window) and where a pixel lies.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import playwright.sync_api as playwright
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.processes import program, wait_until

PATIENCE_S = 120
"""Without a graphics card, and with neighbours at work, the first picture takes its time."""
FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ONLY_THE_IMAGE = """
    body * { visibility: hidden !important; }
    [data-cy="viewport-pane"] canvas { visibility: visible !important; }
"""
VIEWPORT = "const viewport = cornerstone.getRenderingEngines()[0].getViewports()[0];"
DRAWN_ANEW = """
    const drawn = new Promise(resolve =>
        viewport.element.addEventListener('CORNERSTONE_IMAGE_RENDERED', resolve, { once: true }));
    viewport.render();
    await drawn;
    await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
"""

Picture = NDArray[np.uint8]


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=program("chromium"), args=list(FLAGS), timeout=PATIENCE_S * 1e3
        )
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass(frozen=True)
class Segment:
    """A line of OHIF's list of segments; colour: red, green and blue (0 … 255) of the dot beside the name."""

    number: int
    name: str
    colour: tuple[int, int, int]


class Viewer:
    """One study, opened in one window; `faults`: errors that no code of the page caught."""

    def __init__(self, chromium: Browser, address: str, study_uid: str) -> None:
        self.faults: list[str] = []
        self._picture = b""
        self.page: Page = chromium.new_page(viewport={"width": 1280, "height": 800})
        self.page.set_default_timeout(PATIENCE_S * 1e3)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.add_init_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
        self.page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
        self._named("panelSegmentation-btn").click()  # opened later, it would make the images smaller
        self._look_elsewhere()

    def _named(self, name: str) -> Locator:
        return self.page.locator(f'[data-cy="{name}"]')

    def _look_elsewhere(self) -> None:
        """Away with the pointer: it makes boxes appear over the image."""
        self.page.mouse.move(300, 30)

    def _asked(self, script: str, given: Any = None) -> Any:
        return self.page.evaluate(f"async given => {{ {VIEWPORT} {script} }}", given)

    def series(self) -> list[str]:
        """Modality and description of every series in the list at the left, as far as it is shown."""
        listed = self.page.locator('[data-cy^="study-browser-thumbnail"]')
        listed.first.wait_for()
        return [" ".join(text.split()) for text in listed.all_inner_texts()]

    def open_series(self, description: str) -> None:
        """Double-click a series and wait until it is drawn, and all its images are there."""
        self._thumbnail(description).dblclick()
        self._wait_for(description)
        # statistics of segments and reformatted views need them all
        self._asked("await Promise.all(cornerstone.imageLoader.loadAndCacheImages(viewport.getImageIds()));")

    def open_segmentation(self, description: str, series: str) -> list[Segment]:
        """Double-click a Segmentation, say yes, wait until it is drawn over its series; the segments listed."""
        self._thumbnail(description).dblclick()
        self._named("yes-hydrate-btn").click()
        self._named("data-row").first.wait_for()
        self.page.wait_for_function(f"() => {{ {VIEWPORT} return viewport.getActors().length > 1 }}")
        self._wait_for(series)
        return [self._segment(row) for row in self._named("data-row").all()]

    def _thumbnail(self, description: str) -> Locator:
        return self.page.locator('[data-cy^="study-browser-thumbnail"]', has_text=description)

    def _wait_for(self, description: str) -> None:
        """Until the description stands in the corner of the viewport and the picture has come to rest."""
        expect(self._named("viewport-overlay-top-left")).to_contain_text(description, timeout=PATIENCE_S * 1e3)
        self._look_elsewhere()
        self._draw()

    @staticmethod
    def _segment(row: Locator) -> Segment:
        number, name = row.inner_text().split("\n")
        dot = row.locator("span.rounded-full").evaluate("dot => getComputedStyle(dot).backgroundColor")
        red, green, blue = (int(level) for level in re.findall(r"\d+", dot)[:3])
        return Segment(int(number), name, (red, green, blue))

    def statistics(self, segment: Segment) -> dict[str, float]:
        """What OHIF computes of a segment itself and writes in a box when the pointer rests on its name."""
        wait_until(self._has_computed, PATIENCE_S, every=15.0)
        box = self.page.locator("[data-radix-popper-content-wrapper]", has_text="Voxel Count")

        def opened() -> bool:
            """A pointer that came before the list knew the numbers has to come again."""
            self._look_elsewhere()
            self._named("data-row").nth(segment.number - 1).hover()
            with suppress(playwright.TimeoutError):
                box.wait_for(timeout=3e3)
            return box.is_visible()

        wait_until(opened, PATIENCE_S)
        _, _, *lines = box.inner_text().split("\n")
        self._look_elsewhere()
        box.wait_for(state="detached")
        shown = zip(lines[::2], lines[1::2], strict=True)
        return {name: float(value.split()[0]) for name, value in shown if "," not in value}

    def _has_computed(self) -> bool:
        """OHIF computes a while after a change; where its list changes meanwhile it drops the result: ask again."""
        lacking = self._asked(
            """const segments = one => Object.values(one.segments);
            return services.segmentationService.getSegmentations()
                .filter(one => !segments(one).every(segment => segment.cachedStats?.namedStats))
                .map(one => one.segmentationId);"""
        )
        for segmentation in lacking:
            self._asked(
                "cornerstoneTools.segmentation.triggerSegmentationEvents.triggerSegmentationDataModified(given);",
                segmentation,
            )
        return not lacking

    def show_segmentations(self, visible: bool) -> None:
        """All segmentations of the viewport, or none: what the eye above the list does."""
        service = "services.segmentationService"
        self._asked(
            f"""for (const one of {service}.getSegmentationRepresentations(viewport.id))
                if (one.visible !== given)
                    {service}.toggleSegmentationRepresentationVisibility(viewport.id, one);""",
            visible,
        )
        self._draw()

    def turn(self, orientation: str) -> None:
        """Axial, Sagittal or Coronal, by the menu of the viewport."""
        layers = self._asked("return viewport.getActors().length;")
        self._named("orientationMenu-btn").click()
        self.page.get_by_text(orientation, exact=True).click()
        whole = "cornerstone.cache.getVolume(viewport.getVolumeId())?.loadStatus?.loaded"
        turned = f"viewport.type === 'orthographic' && viewport.getActors().length >= layers && {whole}"
        self.page.wait_for_function(f"layers => {{ {VIEWPORT} return {turned} }}", arg=layers)
        self._look_elsewhere()
        self._draw()

    def to_image(self, sop_instance_uid: str) -> None:
        """Scroll to an image of the series."""
        self._asked(
            "await viewport.setImageIdIndex(viewport.getImageIds().findIndex(id => id.includes(given)));",
            f"/instances/{sop_instance_uid}/",
        )
        self._draw()

    def to_place(self, place_mm: NDArray[np.float64]) -> None:
        """Scroll a reformatted view to the plane through a place [LPS mm]."""
        self._asked(
            """const camera = viewport.getCamera(), normal = camera.viewPlaneNormal;
            const aside = given.reduce((sum, x, axis) => sum + (x - camera.focalPoint[axis]) * normal[axis], 0);
            const moved = from => from.map((x, axis) => x + aside * normal[axis]);
            viewport.setCamera({ focalPoint: moved(camera.focalPoint), position: moved(camera.position) });""",
            place_mm.tolist(),
        )
        self._draw()

    def window(self, lowest: float, highest: float) -> None:
        """What is drawn black and what white, in the units in which OHIF holds the voxels."""
        self._asked("viewport.setProperties({ voiRange: given });", {"lower": lowest, "upper": highest})
        self._draw()

    def _draw(self) -> None:
        """Wait until everything that is loaded has been drawn: two pictures in a row are the same."""
        deadline = time.monotonic() + PATIENCE_S
        before = b""
        while before != (now := self._drawn_anew()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the picture did not come to rest within {PATIENCE_S} s")
            before = now
        self._picture = now

    def _drawn_anew(self) -> bytes:
        self._asked(DRAWN_ANEW)
        x, y, width, height = self._asked(
            "const box = viewport.canvas.getBoundingClientRect(); return [box.x, box.y, box.width, box.height];"
        )
        return self.page.screenshot(clip={"x": x, "y": y, "width": width, "height": height}, style=ONLY_THE_IMAGE)

    def image(self) -> Picture:
        """The viewport on the screen after the last action, without the texts over it; uint8 (rows, columns, 3)."""
        return np.asarray(Image.open(io.BytesIO(self._picture)).convert("RGB"))

    def sides(self) -> tuple[str, str]:
        """The letters at the top and at the left of the image."""
        top, left = (
            self.page.locator(f'[data-cy="viewport-pane"] .{place}-mid .orientation-marker-value').inner_text()
            for place in ("top", "left")
        )
        return top, left

    def places_mm(self) -> NDArray[np.float64]:
        """Where the pixels of `image` lie by OHIF's own reckoning, LPS mm (rows, columns, 3)."""
        origin, right, down = np.array(
            self._asked("return [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]].map(pixel => [...viewport.canvasToWorld(pixel)]);")
        )
        rows, columns = self.image().shape[:2]
        row, column = np.mgrid[:rows, :columns][..., None]
        places: NDArray[np.float64] = origin + column * (right - origin) + row * (down - origin)
        return places

    def choose_tool(self, name: str) -> None:
        """By the menu at the right of the tools."""
        self._named("MoreTools-split-button-secondary").click()
        self.page.get_by_role("menuitem", name=name, exact=True).click()

    def probe(self, place_mm: NDArray[np.float64]) -> tuple[float, str]:
        """The value and the unit that OHIF's probe writes beside the pointer when it is held at a place [LPS mm]."""
        self.choose_tool("Probe")
        x, y = self._asked(
            """const box = viewport.canvas.getBoundingClientRect();
            const [x, y] = viewport.worldToCanvas(given);
            return [box.x + x, box.y + y];""",
            place_mm.tolist(),
        )
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        try:
            lines = self.page.locator('[data-cy="viewport-pane"] svg text').last.locator("tspan")
            expect(lines).to_have_count(2, timeout=PATIENCE_S * 1e3)
            value, unit = (lines.last.text_content() or "").split()
        finally:
            self.page.mouse.up()
        return float(value), unit

    def keep(self, folder: Path, name: str) -> None:
        """The whole window as folder/ohif-<name>.png."""
        whole = Image.open(io.BytesIO(self.page.screenshot()))
        whole.convert("RGB").save(folder / f"ohif-{name}.png", optimize=True)

    def close(self) -> None:
        self.page.close()
