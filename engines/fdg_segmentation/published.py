"""Weights that others trained → the tensors of our networks: of the foundation model, and of nnU-Net v2.

Both are starts for training. The foundation model's head gives images back instead of classes, and nnU-Net prepares
its inputs in ways of its own (crop, intensities, order of channels). Only the order of channels is put right here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.checkpoints import Arrays, differences, unwrapped
from engines.contract import Json
from engines.errors import EngineError
from engines.fdg_segmentation import model
from engines.models import Architecture

CONFIGURATION = "3d_fullres"
FIRST = "encoder.0.0.conv.weight"
"""The only tensor of our plain U-Net that knows the order of the input's channels."""
_NNUNET = (
    (re.compile(r"^encoder\.(\d+)\.(\d+)\."), r"encoder.stages.\1.0.convs.\2."),
    (re.compile(r"^decoder\.(\d+)\.(\d+)\."), r"decoder.stages.\1.convs.\2."),
    (re.compile(r"^upsampling\.(\d+)\."), r"decoder.transpconvs.\1."),
)
"""Our names → those in dynamic-network-architectures' PlainConvUNet."""
_REPEATED = re.compile(r"decoder\.encoder\.|.*\.all_modules\.\d+\.|decoder\.seg_layers\.\d+\.")
"""The same tensors under a second name, and heads of the coarser resolutions, which only deep supervision uses."""


class OtherArchitecture(EngineError):
    """Published weights that are not those of a network this engine has."""

    code = "other-architecture"
    hint = "Choose the --architecture they were trained with; SwinUNETR v2 and nnU-Net's plain U-Net are known."


@dataclass(frozen=True)
class Plans:
    """What nnU-Net's plans.json and dataset.json say of a network.

    order : which of its input channels are our PET and CT; preparation : how its inputs were prepared, in words
    """

    architecture: Architecture
    order: tuple[int, int]
    preparation: str


def tensors_of(arrays: Arrays, architecture: Architecture, order: Sequence[int] = (0, 1)) -> dict[str, Tensor]:
    """The tensors of the architecture's network, by our names.

    arrays : by the names of those who published them, with or without what wrappers put before them
    order : input channels of the published network that are PET and CT

    Raises
    ------
    OtherArchitecture
        With the names that are missing, too many, or of another shape.
    """
    arguments = {key: value for key, value in architecture.arguments.items() if key not in model.ABOUT_IMAGES}
    own = model.build(architecture.name, arguments).state_dict()
    found = _by_our_names(arrays, architecture.name, list(own))
    wrong = differences(
        {name: array.shape for name, array in found.items()}, {name: tuple(each.shape) for name, each in own.items()}
    )
    if wrong:
        raise OtherArchitecture(f"weights: expected those of {architecture.name} {arguments}; {wrong}")
    tensors = {name: torch.from_numpy(found[name]).to(own[name].dtype) for name in own}
    if tuple(order) != (0, 1):
        tensors[FIRST] = tensors[FIRST][:, list(order)].contiguous()
    return tensors


def _by_our_names(arrays: Arrays, name: str, own: Sequence[str]) -> Arrays:
    """Arrays under our names, whichever of the two namings fits more of them; what has a second name is taken once."""
    namings = [{each: each for each in own}, {_published_name(each, name, own): each for each in own}]
    shorts = [unwrapped(arrays, naming) for naming in namings]
    fitting = [len(set(short.values()) & naming.keys()) for short, naming in zip(shorts, namings, strict=True)]
    best = fitting.index(max(fitting))
    short, naming = shorts[best], namings[best]
    return {
        naming.get(short[each], short[each]): array
        for each, array in arrays.items()
        if short[each] in naming or not _REPEATED.match(short[each])
    }


def _published_name(own_name: str, architecture: str, own: Sequence[str]) -> str:
    """What one of our tensors is called by MONAI, or by nnU-Net; the last head is the one of full resolution."""
    if architecture == "swin_unetr_v2":
        return own_name.removeprefix("swin.")
    if own_name.startswith("head."):
        stages = {each.split(".")[1] for each in own if each.startswith("upsampling.")}
        return f"decoder.seg_layers.{len(stages) - 1}.{own_name.removeprefix('head.')}"
    for pattern, theirs in _NNUNET:
        own_name = pattern.sub(theirs, own_name)
    return own_name


def plans_of(plans: Json, dataset: Json, configuration: str = CONFIGURATION) -> Plans:
    """The network of nnU-Net's plans, if it is one that we have.

    plans, dataset : plans.json and dataset.json (nnU-Net v2, documentation/explanation_plans_files.md)

    Raises
    ------
    OtherArchitecture
        Another network, other channels or labels than PET, CT and one kind of tumour, or no plans of nnU-Net.
    """
    try:
        chosen = plans["configurations"][configuration]
        network = _network(chosen)
        channels = {int(number): str(name).lower() for number, name in dataset["channel_names"].items()}
        classes = len(dataset["labels"])
        spacing, patch = [float(n) for n in chosen["spacing"]], [int(n) for n in chosen["patch_size"]]
        if list(plans.get("transpose_forward", [0, 1, 2])) != [0, 1, 2]:
            raise OtherArchitecture(f"plans: expected axes as they are, got {plans['transpose_forward']}")
        preparation = _preparation(chosen, plans)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        text = f"plans: expected nnU-Net v2's plans.json and dataset.json with {configuration}, got others"
        raise OtherArchitecture(text, code="plans") from error
    order = _order(channels)
    arguments = {**network, "leaving": classes, "spacing_mm": spacing, "patch": patch}
    return Plans(Architecture("plain_conv_unet", arguments), order, preparation)


def _network(chosen: Mapping[str, Any]) -> dict[str, Json]:
    """Arguments of our network, of the older or newer form of plans."""
    if "architecture" in chosen:
        described = chosen["architecture"]
        kind, told = described["network_class_name"].rpartition(".")[2], described["arch_kwargs"]
        widths, kernels, strides = (told[key] for key in ("features_per_stage", "kernel_sizes", "strides"))
        down, up = told["n_conv_per_stage"], told["n_conv_per_stage_decoder"]
    else:
        kind, kernels, strides = (
            chosen[key] for key in ("UNet_class_name", "conv_kernel_sizes", "pool_op_kernel_sizes")
        )
        base, most = chosen["UNet_base_num_features"], chosen["unet_max_num_features"]
        widths = [min(base * 2**stage, most) for stage in range(len(strides))]
        down, up = chosen["n_conv_per_stage_encoder"], chosen["n_conv_per_stage_decoder"]
    if kind != "PlainConvUNet":
        raise OtherArchitecture(f"plans: expected PlainConvUNet, got {kind}")
    usual = [[1, 1, 1]] + [[2, 2, 2]] * (len(widths) - 1)
    if [list(np.broadcast_to(each, 3)) for each in strides] != usual or len(set(up)) != 1:
        raise OtherArchitecture(f"plans: expected strides of 1, then 2, in every direction, got {strides}")
    if any(list(np.broadcast_to(each, 3)) != [3, 3, 3] for each in kernels):
        raise OtherArchitecture(f"plans: expected kernels of 3 in every direction, got {kernels}")
    return {"widths": list(widths), "encoder_convolutions": list(down), "decoder_convolutions": int(up[0])}


def _order(channels: Mapping[int, str]) -> tuple[int, int]:
    """Channels of PET and CT; where names do not tell, as AutoPET's baseline has them: CT first."""
    if len(channels) != 2:
        raise OtherArchitecture(f"dataset: expected two channels, PET and CT, got {len(channels)}")
    pet = [number for number, name in channels.items() if re.search("pet|suv", name)]
    return (pet[0], 1 - pet[0]) if len(pet) == 1 else (1, 0)


def _preparation(chosen: Mapping[str, Any], plans: Mapping[str, Any]) -> str:
    schemes = ", ".join(str(name) for name in chosen["normalization_schemes"])
    seen = plans.get("foreground_intensity_properties_per_channel", {})
    told = "; ".join(
        f"channel {number}: {each['percentile_00_5']:.4g} to {each['percentile_99_5']:.4g}, "
        f"mean {each['mean']:.4g}, SD {each['std']:.4g}"
        for number, each in sorted(seen.items())
    )
    return f"{schemes} ({told})" if told else schemes
