"""Published weights become ours: the same image through their network and through ours gives the same answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daemon.importing import NotImportable, Wanted, import_weights
from engines import models
from engines.checkpoints import state_dict
from engines.errors import WeightsRefused
from engines.fdg_segmentation import model
from engines.fdg_segmentation.published import OtherArchitecture, plans_of, tensors_of
from engines.models import Architecture

SMALL = Architecture(
    "plain_conv_unet", {"widths": [4, 8, 16], "encoder_convolutions": [1, 2, 2], "decoder_convolutions": 1}
)
SMALL_SWIN = Architecture("swin_unetr_v2", {"width": 12, "depths": [1, 1, 1, 1], "heads": [3, 6, 12, 24]})
KERNELS, STRIDES = [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
NEWER: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": KERNELS,
        "strides": STRIDES,
        "n_conv_per_stage": [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
    },
}
OLDER: dict[str, Any] = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 16,
    "conv_kernel_sizes": KERNELS,
    "pool_op_kernel_sizes": STRIDES,
    "n_conv_per_stage_encoder": [1, 2, 2],
    "n_conv_per_stage_decoder": [1, 1],
}
DATASET: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "tumor": 1},
    "numTraining": 1014,
}


def plans(network: dict[str, Any], **more: Any) -> dict[str, Any]:
    chosen = network if "UNet_class_name" in network else {"architecture": network}
    configuration = {
        **chosen,
        "spacing": [3.0, 2.0, 2.0],
        "patch_size": [96, 128, 128],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        **more,
    }
    seen = {"percentile_00_5": -800.0, "percentile_99_5": 300.0, "mean": 50.0, "std": 200.0}
    return {
        "dataset_name": "Dataset221_AutoPET",
        "configurations": {"3d_fullres": configuration},
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": seen},
    }


def nnunet(*, deep_supervision: bool = False) -> torch.nn.Module:
    """nnU-Net's own network, with weights of which no two are alike, and instance norms that do something."""
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    torch.manual_seed(3)
    network: torch.nn.Module = unet.PlainConvUNet(
        input_channels=2,
        n_stages=3,
        features_per_stage=[4, 8, 16],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=KERNELS,
        strides=STRIDES,
        n_conv_per_stage=[1, 2, 2],
        num_classes=2,
        n_conv_per_stage_decoder=[1, 1],
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network.eval()


def swin() -> torch.nn.Module:
    """MONAI's own network, as the foundation model's repository builds it."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    torch.manual_seed(4)
    network: torch.nn.Module = SwinUNETR(
        2, 2, depths=(1, 1, 1, 1), num_heads=(3, 6, 12, 24), feature_size=12, downsample="mergingv2", use_v2=True
    )
    return network.eval()


def image() -> torch.Tensor:
    return torch.randn((1, 2, 64, 32, 32), generator=torch.Generator().manual_seed(5))


def answer(architecture: Architecture, tensors: dict[str, torch.Tensor], given: torch.Tensor) -> torch.Tensor:
    arguments = {key: value for key, value in architecture.arguments.items() if key not in model.ABOUT_IMAGES}
    network = model.build(architecture.name, arguments).eval()
    network.load_state_dict(tensors)
    with torch.inference_mode():
        found: torch.Tensor = network(given)
    return found


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "nnunet.", "module.nnunet."])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_a_plain_unet_of_nnunet(tmp_path: Path, prefix: str, deep_supervision: bool) -> None:
    theirs = nnunet(deep_supervision=deep_supervision)
    content = {"model_state_dict": {f"{prefix}{name}": each for name, each in theirs.state_dict().items()}, "epoch": 3}
    tensors = tensors_of(state_dict(saved(tmp_path / "a.pth", content)), SMALL)
    theirs.decoder.deep_supervision = False  # type: ignore[union-attr]
    with torch.inference_mode():
        expected = theirs(image())
    assert torch.allclose(answer(SMALL, tensors, image()), expected, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "encoder_decoder.", "module.encoder_decoder."])
def test_a_swin_unetr_of_the_foundation_model(tmp_path: Path, prefix: str) -> None:
    theirs = swin()
    content = {f"{prefix}{name}": each for name, each in theirs.state_dict().items()}
    path = saved(tmp_path / "a.pth", {"model_state_dict": content, "train_loss": np.float64(0.2)})
    tensors = tensors_of(state_dict(path), SMALL_SWIN)
    with torch.inference_mode():
        expected = theirs(image())
    assert torch.allclose(answer(SMALL_SWIN, tensors, image()), expected, atol=1e-5)


def test_our_own_names_are_taken_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = model.build(SMALL.name, SMALL.arguments).state_dict()
    found = tensors_of(state_dict(saved(tmp_path / "a.pth", own)), SMALL)
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_another_network_is_refused_with_what_differs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = dict(model.build(SMALL.name, SMALL.arguments).state_dict())
    wider = Architecture(SMALL.name, {**SMALL.arguments, "widths": [4, 8, 20]})
    with pytest.raises(OtherArchitecture, match=r"of another shape: encoder\.2\.0\.conv\.weight"):
        tensors_of({name: each.numpy() for name, each in own.items()}, wider)
    del own["head.bias"]
    own["token"] = torch.zeros(1)
    with pytest.raises(OtherArchitecture, match=r"1 missing: head.bias; 1 unexpected: token"):
        tensors_of({name: each.numpy() for name, each in own.items()}, SMALL)
    with pytest.raises(OtherArchitecture, match="missing"):
        tensors_of({name: each.numpy() for name, each in own.items()}, SMALL_SWIN)


def results(folder: Path, network: dict[str, Any], dataset: dict[str, Any] | None = None) -> torch.nn.Module:
    """A results folder as nnU-Net leaves it."""
    theirs = nnunet()
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans(network)))
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    content = {
        "network_weights": theirs.state_dict(),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01}]},
        "_best_ema": np.float64(0.6),
        "logging": {"mean_fg_dice": [np.float64(0.5)]},
        "init_args": {"device": torch.device("cuda")},
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return theirs


@pytest.mark.parametrize("network", [NEWER, OLDER])
@pytest.mark.parametrize("channels", [{"0": "CT", "1": "PET"}, {"0": "PET", "1": "CT"}, {"0": "CT", "1": "CT"}])
def test_a_results_folder_of_nnunet(tmp_path: Path, network: dict[str, Any], channels: dict[str, str]) -> None:
    """Their network sees the channels in their order, ours PET before CT: the answer is the same."""
    theirs = results(tmp_path / "results", network, {**DATASET, "channel_names": channels})
    out = tmp_path / "out.safetensors"
    done = import_weights(Wanted(tmp_path / "results", "fdg_segmentation"), out, None)
    weights = models.load(out)
    assert done["sha256"] == weights.sha256
    pet_and_ct = image()
    with torch.inference_mode():
        expected = theirs(pet_and_ct if channels["0"] == "PET" else pet_and_ct[:, [1, 0]])
    assert torch.allclose(answer(weights.card.architecture, weights.tensors, pet_and_ct), expected, atol=1e-5)
    card = weights.card
    assert card.start_only
    assert card.architecture.arguments["spacing_mm"] == [3.0, 2.0, 2.0]
    assert "Dataset221_AutoPET, 1014 cases, fold 0" in card.data
    assert "CTNormalization, ZScoreNormalization (channel 0: -800 to 300, mean 50, SD 200)" in card.data
    assert model.from_weights(weights) is not None


def told(**changed: Any) -> dict[str, Any]:
    """The newer form of plans with other arguments of the network."""
    return {"architecture": {**NEWER, "arch_kwargs": {**NEWER["arch_kwargs"], **changed}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": {**NEWER, "network_class_name": "x.ResidualEncoderUNet"}}, "ResidualEncoderUNet"),
        (told(strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]]), "strides"),
        (told(kernel_sizes=[[1, 3, 3]] * 3), "kernels"),
        ({"architecture": {}}, "plans.json"),
        ({"spacing": None}, "plans.json"),
    ],
)
def test_plans_of_other_networks_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(OtherArchitecture, match=said):
        plans_of(plans(NEWER, **change), DATASET)


def test_other_plans_and_channels_are_refused() -> None:
    for document in ({}, [], None, {"configurations": {}}, {**plans(NEWER), "transpose_forward": [2, 0, 1]}):
        with pytest.raises(OtherArchitecture):
            plans_of(document, DATASET)
    with pytest.raises(OtherArchitecture, match="channels"):
        plans_of(plans(NEWER), {**DATASET, "channel_names": {"0": "CT"}})


def test_a_checkpoint_of_a_preset(tmp_path: Path) -> None:
    from engines.fdg_segmentation.train import PRESETS

    preset = PRESETS["ablation"]
    torch.manual_seed(0)
    own = model.build(preset.network.name, preset.network.arguments).state_dict()
    path = saved(tmp_path / "a.pth", {"state_dict": own})
    out = tmp_path / "out.safetensors"
    import_weights(Wanted(path, "fdg_segmentation", "ablation"), out, None)
    weights = models.load(out)
    assert all(torch.equal(weights.tensors[name], own[name]) for name in own)
    assert weights.card.architecture.arguments["spacing_mm"] == list(preset.spacing_mm)
    assert "a.pth" in weights.card.data
    with pytest.raises(OtherArchitecture):
        import_weights(Wanted(path, "fdg_segmentation", "tiny"), out, None)
    for wanted in (
        Wanted(path, "fdg_segmentation"),
        Wanted(path, "fdg_segmentation", "tinny"),
        Wanted(path, "threshold_segmentation", "tiny"),
        Wanted(tmp_path, "fdg_segmentation"),
        Wanted(tmp_path / "absent.pth", "fdg_segmentation", "tiny"),
        Wanted(tmp_path / "a.npy", "fdg_segmentation", "tiny"),
    ):
        with pytest.raises(NotImportable):
            import_weights(wanted, tmp_path / "other.safetensors", None)
    assert not (tmp_path / "other.safetensors").exists()


def test_weights_without_their_card_are_not_imported(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused):
        import_weights(Wanted(tmp_path / "a.safetensors", "fdg_segmentation"), None, None)
