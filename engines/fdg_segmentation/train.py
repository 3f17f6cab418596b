"""The recipe of arXiv 2605.21835: reconstruct what was hidden, then learn to segment from few labels.

Comparators of the paper are switches of a preset: `token` (a learned value at hidden voxels), `visible_weight` 0 (loss
at hidden voxels only), and networks of two branches, joined late or pre-trained apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from engines import training
from engines.contract import Case
from engines.errors import EngineError
from engines.fdg_segmentation import masks, model
from engines.fdg_segmentation.patches import Drawing, Patches
from engines.fdg_segmentation.preprocessing import PAPER_PATCH, PAPER_SPACING_MM, Example, Spacing, examples
from engines.fdg_segmentation.windows import predicted
from engines.metrics import dice
from engines.models import Architecture
from engines.tiling import Tiling
from engines.training import Batch, History, Objective, Run, Schedule, Validation

Tensors = Mapping[str, Tensor]
MASKED_SHARE = 0.5


class OtherNetwork(EngineError):
    """Weights to start from that do not fit the network."""

    code = "other-network"
    hint = "Start from weights of the same preset, or from none."


@dataclass(frozen=True)
class Preset:
    """Everything that decides what is learned, but for data and seed.

    spacing_mm : of the grid, (z, y, x); block : voxels (z, y, x) of what is hidden together
    validate_every : steps of fine-tuning between two scores on the tune cohort
    """

    network: Architecture
    spacing_mm: Spacing
    drawing: Drawing
    block: masks.Shape
    batch: tuple[int, int]
    """Patches of a step: in pre-training, in fine-tuning."""
    pretraining: Schedule
    finetuning: Schedule
    probing: Schedule
    pretraining_drawing: Drawing | None = None
    validate_every: int = 600
    pooled_dice: bool = False
    """Dice loss over the whole batch instead of patch by patch, where patches without a lesion weigh as much."""
    token: bool = False
    visible_weight: float = masks.VISIBLE_WEIGHT

    def tiling(self, overlap: float = 0.5) -> Tiling:
        """Windows of the size of its patches."""
        return Tiling(self.drawing.patch, overlap)


@dataclass(frozen=True)
class Trained:
    """Tensors by name, and how they came about."""

    tensors: dict[str, Tensor]
    history: History = field(default_factory=History)


class MaskedAutoencoder(nn.Module):
    """A network with the value that stands at hidden voxels: 0, or one learned for each modality."""

    def __init__(self, network: nn.Module, *, token: bool) -> None:
        super().__init__()
        self.network = network
        self.token = nn.Parameter(torch.zeros(1, 2, 1, 1, 1)) if token else None

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """The image as it is reconstructed from what is visible."""
        hidden = masks.hide(image, mask, 0.0 if self.token is None else self.token.to(image.dtype))
        reconstructed: Tensor = self.network(hidden)
        return reconstructed


def pretrain(cases: Sequence[Case], preset: Preset, run: Run) -> Trained:
    """Learn to reconstruct; labels are not looked at. Raises as `training.fit` and `preprocessing.prepared`."""
    return pretrain_on(list(examples(cases, preset.spacing_mm)), preset, run)


def pretrain_on(prepared: Sequence[Example], preset: Preset, run: Run) -> Trained:
    """As `pretrain`, on prepared examples."""
    drawing = preset.pretraining_drawing or Drawing(preset.drawing.patch)
    patches = Patches(prepared, replace(drawing, lesions=0.0))
    autoencoder = MaskedAutoencoder(network_of(preset, run.seed), token=preset.token)

    def draw(rng: np.random.Generator) -> Batch:
        image = patches.batch(preset.batch[0], rng)["image"]
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        return {"image": image, "mask": masks.block_mask(image.shape, preset.block, MASKED_SHARE, generator)}

    def loss(autoencoder: nn.Module, batch: Batch) -> Tensor:
        made = autoencoder(batch["image"], batch["mask"])
        return masks.reconstruction_loss(made.float(), batch["image"], batch["mask"], preset.visible_weight)

    history = training.fit(autoencoder, Objective(draw, loss), preset.pretraining, run)
    tensors = dict(autoencoder.network.state_dict())
    if autoencoder.token is not None:
        tensors["token"] = autoencoder.token.detach()
    return Trained(tensors, history)


def finetune(cases: Sequence[Case], tune: Sequence[Case], preset: Preset, run: Run, start: Tensors | None) -> Trained:
    """Learn to segment, from weights of pre-training or from none; the tune cases choose the best step.

    Raises as `training.fit`, `preprocessing.prepared` and `started_from`; ValueError where no case has a truth.
    """
    learn, choose = (list(examples(each, preset.spacing_mm)) for each in (cases, tune))
    return finetune_on(learn, choose, preset, run, start)


def finetune_on(
    prepared: Sequence[Example],
    tune: Sequence[Example],
    preset: Preset,
    run: Run,
    start: Tensors | None,
    *,
    keep_head: bool = False,
) -> Trained:
    """As `finetune`, on prepared examples.

    keep_head : of weights that segment already
    """
    whole = start if keep_head else None
    network = started_from(start, preset, run.seed) if whole is None else started_with(whole, preset)
    validation = Validation(lambda each: mean_dice(each, tune, preset), preset.validate_every) if tune else None
    history = training.fit(network, _segmentation(prepared, preset), preset.finetuning, run, validation=validation)
    return Trained(dict(network.state_dict()), history)


def probe_on(prepared: Sequence[Example], preset: Preset, run: Run, start: Tensors | None) -> Trained:
    """Linear probing: only a fresh 1³ head learns; every other weight stays as it is in `start`, or as it was drawn."""
    network = started_from(start, preset, run.seed)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.startswith(_head_of(network)))
    objective = _segmentation(prepared, preset)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return objective.loss(network.eval(), batch)  # else statistics of a normalisation over batches would learn

    history = training.fit(network, Objective(objective.draw, loss), preset.probing, run)
    return Trained(dict(network.state_dict()), history)


def started_from(start: Tensors | None, preset: Preset, seed: int) -> nn.Module:
    """The network of a preset with the given weights, but with a fresh head: classes are no reconstructed intensities.

    Raises
    ------
    OtherNetwork
        Names or shapes of the weights are not those of the network.
    """
    network = network_of(replace(preset, network=_joined(preset.network)), seed)
    if start is None:
        return network
    own, head = network.state_dict(), _head_of(network)
    given = {name: tensor for name, tensor in start.items() if name != "token" and not name.startswith(head)}
    expected = {name for name in own if not name.startswith(head)}
    wrong = sorted(expected ^ set(given)) + [
        name for name in sorted(expected & set(given)) if own[name].shape != given[name].shape
    ]
    if wrong:
        raise OtherNetwork(f"weights to start from: expected those of {preset.network}, differing in {wrong[:3]}")
    network.load_state_dict(own | given)
    return network


def started_with(tensors: Tensors, preset: Preset) -> nn.Module:
    """The network of a preset with all of the given weights, its head included."""
    network = network_of(replace(preset, network=_joined(preset.network)), 0)
    network.load_state_dict(dict(tensors))
    return network


def mean_dice(network: nn.Module, tune: Sequence[Example], preset: Preset) -> float:
    """Mean Dice over the examples that have a lesion, on the grid of the preset; windows overlap by a quarter."""
    scores = []
    for each in tune:
        if each.truth is None or not each.truth.any():
            continue
        found = predicted(network, each.image.astype(np.float32), preset.tiling(0.25), lambda: False) > 0.5
        scores.append(dice(found, each.truth))
    return float(np.mean(scores))


def _segmentation(prepared: Sequence[Example], preset: Preset) -> Objective:
    from monai.losses.dice import DiceCELoss

    labelled = [each for each in prepared if each.truth is not None]
    if not labelled:
        raise ValueError("fine-tuning: expected cases with a truth, got none")
    patches = Patches(labelled, preset.drawing)
    dice_and_cross_entropy = DiceCELoss(softmax=True, to_onehot_y=True, batch=preset.pooled_dice)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        value: Tensor = dice_and_cross_entropy(network(batch["image"]).float(), batch["truth"].long())
        return value

    return Objective(lambda rng: patches.batch(preset.batch[1], rng), loss)


def network_of(preset: Preset, seed: int) -> nn.Module:
    """The network of a preset as a seed draws it."""
    torch.manual_seed(seed)
    return model.build(preset.network.name, preset.network.arguments)


def _joined(network: Architecture) -> Architecture:
    """Branches that were pre-trained apart are joined to segment."""
    return Architecture(network.name, {key: value for key, value in network.arguments.items() if key != "apart"})


def _head_of(network: nn.Module) -> str:
    return "swin.out." if isinstance(network, model.SwinUNETRv2) else "head."


def _unet(widths: list[int], norm: model.Norm) -> Architecture:
    encoder = [1] + [2] * (len(widths) - 1)
    arguments = {"widths": widths, "encoder_convolutions": encoder, "decoder_convolutions": 1}
    return Architecture("plain_conv_unet", arguments | ({"norm": norm} if norm != "instance" else {}))


def _for_cpu(network: Architecture, patch: masks.Shape, block: masks.Shape, steps: tuple[int, ...]) -> Preset:
    """Half of the patches lie around lesions, since a CPU sees few.

    steps : of pre-training, and of each cycle of fine-tuning
    """
    first, *cycles = steps
    drawing = Drawing(patch, lesions=0.5, hot=0.3, partial_view=0.25)
    return Preset(
        network=network,
        spacing_mm=(5.0, 5.0, 5.0),
        drawing=drawing,
        pretraining_drawing=replace(drawing, lesions=0.0),
        block=block,
        batch=(2, 2),
        pretraining=Schedule(first, 2e-3, warm_up_steps=50),
        finetuning=Schedule(sum(cycles), 2e-3, warm_up_steps=100, cycles=tuple(cycles) if cycles[1:] else ()),
        probing=Schedule(300, 1e-2),
        validate_every=sum(cycles),
        pooled_dice=True,
    )


def _ct_may_be_missing(preset: Preset) -> Preset:
    return replace(preset, drawing=replace(preset.drawing, without_ct=0.15))


def _paper(network: Architecture, learning_rate: float) -> Preset:
    """Sizes and schedule of the paper: 200 epochs of 4,997 volumes, 100 epochs of 700."""
    return Preset(
        network=network,
        spacing_mm=PAPER_SPACING_MM,
        drawing=Drawing(PAPER_PATCH),
        block=(12, 16, 16),
        batch=(16, 4),
        pretraining=Schedule(62_400, learning_rate),
        finetuning=Schedule(17_500, learning_rate),
        probing=Schedule(250, 1e-3),
        validate_every=875,
    )


def _swin(width: int, third_depth: int) -> Architecture:
    return Architecture("swin_unetr_v2", {"width": width, "depths": [2, 2, third_depth, 2]})


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "tiny": _ct_may_be_missing(
            _for_cpu(_unet([16, 32, 64, 128], "batch"), (48, 40, 48), (6, 5, 6), (1_200, 18_000, 9_000))
        ),
        "small": _ct_may_be_missing(
            _for_cpu(_unet([16, 32, 64, 96, 128], "batch"), (64, 48, 64), (8, 6, 8), (600, 9_000))
        ),
        "ablation": _for_cpu(_unet([8, 16, 32, 64], "instance"), (32, 32, 40), (4, 4, 5), (800, 1200)),
        "nnunet-31m": _paper(Architecture("plain_conv_unet"), 5e-4),
        "swin-18m": _paper(_swin(24, 2), 1e-4),
        "swin-75m": _paper(_swin(48, 6), 1e-4),
        "swin-319m": _paper(_swin(96, 18), 1e-4),
    }
)
"""By name: `tiny` and `small` train on a CPU, `ablation` in minutes, the others have the sizes of the paper."""
