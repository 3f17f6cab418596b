"""The engine: PET and CT in, tumours as a label map on the grid of the PET out.

torch is imported when a volume arrives: which weights a job will use is known from their card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import inputs, models
from engines.contract import FloatArray, Json, Products, Slot, Volume
from engines.errors import BadParameters, CannotProcess, NoGpu, WeightsRefused
from engines.fdg_segmentation import parameters as known

if TYPE_CHECKING:
    from torch import nn

    from engines.fdg_segmentation.preprocessing import Prepared, Spacing
    from engines.lesions import Mask, Region
    from engines.tiling import Shape

SHIPPED = Path(__file__).parent / "weights" / "tiny.safetensors"
COLD_SUV = 1.0
"""Nothing is looked for in windows that hold no voxel of the body above this SUV."""

PET_ONLY = "Segmented by PET alone, without a CT, which is less reliable: {why}."


class FdgSegmentation:
    """Tumour segmentation of FDG PET/CT by a network (arXiv 2605.21835).

    weights : a file of `engines.models`, whose card names the network and what it was trained on; device : of torch,
    None = the first GPU where there is one. Which weights they are is read from their card; they are compared with it
    before they are used. Raises WeightsRefused where there is no card.
    """

    name = "fdg_segmentation"
    version = "1.0.0"
    inputs: Mapping[str, Slot] = known.INPUTS
    defaults: Mapping[str, Json] = known.DEFAULTS

    def __init__(self, weights: Path = SHIPPED, device: str | None = None) -> None:
        self.weights, self.device = weights, device
        self.weights_sha256: str | None = models.card_of(weights).sha256

    def check(self, parameters: Mapping[str, Json]) -> list[str]:
        """Every fault of the parameters in words."""
        return known.KNOWN.faults(parameters)

    def __call__(
        self, volumes: Mapping[str, Volume], parameters: Mapping[str, Json], should_stop: Callable[[], bool]
    ) -> Products:
        """Segment; see README.md beside this file.

        Raises
        ------
        BadParameters
            With every fault.
        CannotProcess
            Codes "missing-input", "wrong-quantity", "not-finite", "no-body", "ct-not-paired" and "empty-image".
        WeightsRefused
            The weights are not those of their card.
        Stopped
            `should_stop` answered yes.
        """
        if faults := self.check(parameters):
            raise BadParameters("; ".join(faults))
        inputs.check(volumes, self.inputs)
        from engines.fdg_segmentation.preprocessing import back_on_grid_of

        chosen = {**self.defaults, **parameters}
        network, card = loaded(self.weights, self.device, self.weights_sha256)
        pet = volumes["pet"]
        seen, warnings = _seen(pet, volumes.get("ct"), spacing_of(card), pet_only=chosen["without_ct"] == "pet-only")
        found = probability(network, seen, window_of(card), chosen, should_stop)
        there = back_on_grid_of(pet, found, seen.affine, outside=0.0)
        products = _products(pet, there, card, chosen, should_stop)
        return replace(products, warnings=(*warnings, *products.warnings))


def _seen(pet: Volume, ct: Volume | None, spacing_mm: Spacing, *, pet_only: bool) -> tuple[Prepared, tuple[str, ...]]:
    """The study as the network sees it, and what must be said of how."""
    from engines.fdg_segmentation.preprocessing import prepared

    if ct is None and not pet_only:
        raise CannotProcess(
            "input ct: expected the CT of the PET, got none",
            code="missing-input",
            hint="`parameters: {without_ct: pet-only}` in the rule segments a PET alone, less well.",
        )
    try:
        return prepared(pet, ct, spacing_mm), (PET_ONLY.format(why="there is none"),) if ct is None else ()
    except CannotProcess as error:
        if ct is None or not pet_only or error.code not in {"ct-not-paired", "no-body"}:
            raise
        return prepared(pet, None, spacing_mm), (PET_ONLY.format(why=str(error)),)


def probability(
    network: nn.Module, seen: Prepared, window: Shape, chosen: Mapping[str, Json], should_stop: Callable[[], bool]
) -> FloatArray:
    """Probability of tumour (z, y, x) on the prepared grid; 0 where no window was worth a look."""
    from engines.fdg_segmentation.windows import predicted
    from engines.tiling import Tiling

    tiling = Tiling(window, float(chosen["overlap"]))
    found = predicted(network, seen.image, tiling, should_stop, worth=worth_a_look(seen))
    if chosen["mirroring"]:
        mirrored = predicted(network, seen.image[..., ::-1], tiling, should_stop, worth=worth_a_look(seen)[..., ::-1])
        found = (found + mirrored[..., ::-1]) / np.float32(2.0)
    return found


def worth_a_look(seen: Prepared) -> Mask:
    """Where a tumour may be: in the body, and not cold."""
    mask: Mask = seen.body & (seen.suv > COLD_SUV)
    return mask


def window_of(card: models.Card) -> Shape:
    """Window (z, y, x) of the network: the patches it learned from."""
    from engines.fdg_segmentation.preprocessing import PAPER_PATCH

    z, y, x = card.architecture.arguments.get("patch", PAPER_PATCH)
    return z, y, x


def spacing_of(card: models.Card) -> Spacing:
    """Spacing (z, y, x) of the grid the network learned on [mm]."""
    from engines.fdg_segmentation.preprocessing import PAPER_SPACING_MM

    z, y, x = card.architecture.arguments.get("spacing_mm", PAPER_SPACING_MM)
    return float(z), float(y), float(x)


@lru_cache(maxsize=2)
def loaded(path: Path, device: str | None = None, sha256: str | None = None) -> tuple[nn.Module, models.Card]:
    """The network of a file of weights, ready to predict, and its card; kept for the next study.

    sha256 : the weights that are expected, None = those of the card

    Raises
    ------
    WeightsRefused
        As `models.load` and `model.from_weights`; code "sha256" where the file was replaced by other weights.
    NoGpu
        A GPU was asked for.
    """
    import torch

    from engines.fdg_segmentation.model import from_weights, fused

    weights = models.load(path)
    if sha256 not in {None, weights.sha256}:
        raise WeightsRefused(f"{path.name}: expected {sha256}, got {weights.sha256}", code="sha256")
    there = torch.cuda.is_available()
    where = device or ("cuda" if there else "cpu")
    if where.startswith("cuda") and not there:
        raise NoGpu(f"device: expected {where}, got a machine on which torch finds no GPU")
    return fused(from_weights(weights).to(where).eval()), weights.card


def _products(
    pet: Volume, found: FloatArray, card: models.Card, chosen: Mapping[str, Json], should_stop: Callable[[], bool]
) -> Products:
    from engines.lesions import Limits, components, label_map, measured, totals

    threshold, connectivity = float(chosen["threshold"]), int(chosen["connectivity"])
    sure = float(chosen["min_confidence"])
    regions = [each for each in components(found > threshold, connectivity) if confidence(each, found) >= sure]
    limits = Limits(float(chosen["min_volume_ml"]), int(chosen["max_lesions"]))
    kept = measured(pet, regions, limits, should_stop)
    lesions = [
        replace(lesion, confidence=confidence(region, found))
        for lesion, region in zip(kept.lesions, kept.regions, strict=True)
    ]
    return Products(
        method=f"Network {card.architecture.name}, probability of tumour above {threshold:g}; {connectivity}-connected",
        label_map=label_map(pet, kept.regions),
        lesions=tuple(lesions),
        measurements=totals(lesions),
        warnings=(f"Trained on: {card.data}. {card.intended_use}", *kept.warnings),
    )


def confidence(region: Region, found: FloatArray) -> float:
    """The mean probability of a region's voxels."""
    inside: Any = found[region.box][region.mask]
    return float(inside.mean(dtype=np.float64))
