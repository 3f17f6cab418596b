"""The networks by name: a plain convolutional U-Net in the manner of nnU-Net, two branches of it, and SwinUNETR v2.

Every network takes (batch, channels, z, y, x) and gives (batch, classes, z, y, x); `features` gives the last map of the
decoder, which a linear probe reads. The sides of an image must be multiples of `divisor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.contract import Json
from engines.errors import WeightsRefused
from engines.models import Weights

ABOUT_IMAGES = frozenset({"spacing_mm", "patch"})
"""What a card's architecture also says: the grid and the windows that the network is made for."""
Norm = Literal["instance", "batch"]
NORMS: Mapping[Norm, type[nn.InstanceNorm3d | nn.BatchNorm3d]] = MappingProxyType(
    {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
)
SLOPE = 0.01
"""Of LeakyReLU, and of the gain of He's initialisation."""


class Network(Protocol):
    """What training and inference ask of a network."""

    divisor: int
    width: int
    """Channels of `features`."""

    def features(self, image: Tensor) -> Tensor:
        """The last feature map of the decoder, (batch, width, z, y, x)."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """A value per class or channel and voxel."""
        ...


class _Convolution(nn.Module):
    """3³ convolution, normalisation, leaky ReLU."""

    def __init__(self, entering: int, leaving: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(entering, leaving, 3, stride, 1)
        self.norm: nn.Module = NORMS[norm](leaving, eps=1e-5, affine=True)
        self.nonlinearity = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """As `Network`."""
        return cast("Tensor", self.nonlinearity(self.norm(self.conv(image))))


def _stage(entering: int, leaving: int, convolutions: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    first = _Convolution(entering, leaving, stride, norm)
    return nn.Sequential(first, *(_Convolution(leaving, leaving, 1, norm) for _ in range(convolutions - 1)))


class PlainConvUNet(nn.Module):
    """U-Net of plain convolutions without deep supervision (nnU-Net's 3d_fullres; Isensee 2021, Nat Methods 18:203).

    widths : channels of each stage; every stage after the first halves the image
    encoder_convolutions, decoder_convolutions : per stage; of the encoder one number for each, or one for all
    norm : "instance" as in nnU-Net, over the window at hand; "batch" over what was trained on, so that a voxel's result
        does not depend on what else a window shows, and windows may be of any size
    """

    def __init__(
        self,
        *,
        entering: int = 2,
        leaving: int = 2,
        widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
        encoder_convolutions: int | tuple[int, ...] = 2,
        decoder_convolutions: int = 2,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        widths = tuple(widths)
        each = (encoder_convolutions,) * len(widths) if isinstance(encoder_convolutions, int) else encoder_convolutions
        before = (entering, *widths[:-1])
        self.encoder = nn.ModuleList(
            _stage(a, b, n, norm, stride=1 if i == 0 else 2)
            for i, (a, b, n) in enumerate(zip(before, widths, each, strict=True))
        )
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.upsampling = nn.ModuleList(nn.ConvTranspose3d(low, high, 2, 2) for low, high in upwards)
        self.decoder = nn.ModuleList(_stage(2 * high, high, decoder_convolutions, norm) for _, high in upwards)
        self.head = nn.Conv3d(widths[0], leaving, 1)
        self.divisor, self.width, self.norm = 2 ** (len(widths) - 1), widths[0], norm
        self.apply(_he)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it; a quarter faster on a CPU

    def features(self, image: Tensor) -> Tensor:
        """As `Network`."""
        skips = []
        for stage in self.encoder:
            image = stage(image)
            skips.append(image)
        skips.pop()
        for up, stage in zip(self.upsampling, self.decoder, strict=True):
            image = stage(torch.cat([up(image), skips.pop()], dim=1))
        return image

    def forward(self, image: Tensor) -> Tensor:
        """As `Network`."""
        return cast("Tensor", self.head(self.features(image)))


class DualBranchUNet(nn.Module):
    """Late fusion: a U-Net for each modality, joined only in the last feature map. Comparator of the paper.

    `apart` keeps even the head apart: each branch gives its own modality back (pre-training modality by modality).
    """

    def __init__(
        self,
        *,
        leaving: int = 2,
        widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
        apart: bool = False,
        encoder_convolutions: int | tuple[int, ...] = 2,
        decoder_convolutions: int = 2,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            PlainConvUNet(
                entering=1,
                leaving=1,
                widths=widths,
                encoder_convolutions=encoder_convolutions,
                decoder_convolutions=decoder_convolutions,
            )
            for _ in range(2)
        )
        self.apart = apart
        first = cast("PlainConvUNet", self.branches[0])
        self.divisor, self.width = first.divisor, 2 * first.width
        self.head = nn.Conv3d(self.width, leaving, 1)
        self.head.apply(_he)

    def features(self, image: Tensor) -> Tensor:
        """As `Network`."""
        parts = zip(self.branches, torch.split(image, 1, dim=1), strict=True)
        return torch.cat([cast("PlainConvUNet", branch).features(part) for branch, part in parts], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """As `Network`."""
        if self.apart:
            parts = zip(self.branches, torch.split(image, 1, dim=1), strict=True)
            return torch.cat([branch(part) for branch, part in parts], dim=1)
        return cast("Tensor", self.head(self.features(image)))


class SwinUNETRv2(nn.Module):
    """MONAI's SwinUNETR with residual convolutions before each stage (He 2023, MICCAI: SwinUNETR-V2)."""

    divisor = 32

    def __init__(
        self,
        *,
        entering: int = 2,
        leaving: int = 2,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        width: int = 24,
        checkpointing: bool = True,
    ) -> None:
        from monai.networks.nets.swin_unetr import SwinUNETR

        super().__init__()
        self.width = width
        self.swin = SwinUNETR(
            entering,
            leaving,
            depths=tuple(depths),
            num_heads=tuple(heads),
            feature_size=width,
            dropout_path_rate=0.05,
            use_checkpoint=checkpointing,
            downsample="mergingv2",
            use_v2=True,
        )

    def features(self, image: Tensor) -> Tensor:
        """As `Network`."""
        swin = self.swin
        hidden = swin.swinViT(image, swin.normalize)
        skips = [swin.encoder1(image), swin.encoder2(hidden[0]), swin.encoder3(hidden[1]), swin.encoder4(hidden[2])]
        decoded = swin.decoder5(swin.encoder10(hidden[4]), hidden[3])
        for decoder, skip in zip(
            (swin.decoder4, swin.decoder3, swin.decoder2, swin.decoder1), skips[::-1], strict=True
        ):
            decoded = decoder(decoded, skip)
        return cast("Tensor", decoded)

    def forward(self, image: Tensor) -> Tensor:
        """As `Network`."""
        return cast("Tensor", self.swin.out(self.features(image)))

    @property
    def head(self) -> nn.Module:
        """The last, 1³ convolution."""
        return cast("nn.Module", self.swin.out)


ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"plain_conv_unet": PlainConvUNet, "dual_branch_unet": DualBranchUNet, "swin_unetr_v2": SwinUNETRv2}
)


def build(name: str, arguments: Mapping[str, Json]) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    Raises
    ------
    ValueError
        No architecture of that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name](**{key: _fixed(value) for key, value in arguments.items()})


def from_weights(weights: Weights) -> nn.Module:
    """The network of a card with its tensors. Raises WeightsRefused "other-architecture" where they do not fit."""
    named = weights.card.architecture
    try:
        network = build(named.name, {key: value for key, value in named.arguments.items() if key not in ABOUT_IMAGES})
        network.load_state_dict({name: tensor.float() for name, tensor in weights.tensors.items()})
    except (ValueError, TypeError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        message = f"weights of {named.name}: expected tensors of the network its card names, got {said}"
        raise WeightsRefused(message, code="other-architecture") from error
    return network


def fused(network: nn.Module) -> nn.Module:
    """A network for inference: what normalises over the training data becomes part of the convolution before it."""
    for part in network.modules():
        if isinstance(part, _Convolution) and isinstance(part.norm, nn.BatchNorm3d):
            part.conv = fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()
    return network


def sees_windows(network: nn.Module) -> bool:
    """Whether a voxel's result depends on what else its window shows, so that windows must be those of training."""
    return not isinstance(network, PlainConvUNet) or network.norm == "instance"


def _fixed(value: Json) -> Json:
    return tuple(value) if isinstance(value, list | tuple) else value


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
