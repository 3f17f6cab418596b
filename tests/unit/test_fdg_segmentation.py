"""The engine and its recipe on small networks: preparation, networks, patches, learning, inference, refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from engines import models
from engines.contract import Case, LabelMap, Quantity, Volume
from engines.errors import BadParameters, CannotProcess, Stopped, WeightsRefused
from engines.fdg_segmentation import model, train
from engines.fdg_segmentation.evaluate import evaluate
from engines.fdg_segmentation.infer import FdgSegmentation, worth_a_look
from engines.fdg_segmentation.patches import Drawing, Patches
from engines.fdg_segmentation.preprocessing import (
    Example,
    back_on_grid_of,
    example,
    on_grid,
    patient_grid,
    prepared,
    sampled,
    z_score,
)
from engines.fdg_segmentation.windows import at_least, cpu_has_bfloat16, predicted, tile
from engines.registry import engine
from engines.simulation import phantom
from engines.tiling import Tiling
from engines.training import Run, Schedule

SPACING = (10.0, 10.0, 10.0)
ONCE = {"encoder_convolutions": 1, "decoder_convolutions": 1}
NETWORK = models.Architecture("plain_conv_unet", {"widths": [4, 8], **ONCE})
PLAIN = {"threshold": 0.5, "min_confidence": 0.0}
"""Networks that learned for a moment are sure of nothing."""
BATCH_NORM = models.Architecture("plain_conv_unet", {**NETWORK.arguments, "norm": "batch"})


def never() -> bool:
    return False


def mini(**changes: object) -> train.Preset:
    preset = train.Preset(
        network=NETWORK,
        spacing_mm=SPACING,
        drawing=Drawing((16, 12, 16), lesions=0.7, hot=0.2, partial_view=0.2),
        block=(4, 4, 4),
        batch=(2, 2),
        pretraining=Schedule(4, 1e-3, precision="float32"),
        finetuning=Schedule(4, 1e-3, precision="float32"),
        probing=Schedule(4, 1e-2, precision="float32"),
        pooled_dice=True,
    )
    return replace(preset, **changes)


@cache
def case(seed: int = 1) -> Case:
    scan = phantom.simulate(phantom.Plan(seed, (90, 60, 60), (90, 100, 100), lesions=5, counts=None))
    assert scan.pet is not None and scan.ct is not None
    lesions = scan.truth
    assert lesions is not None
    return Case({"pet": scan.pet, "ct": scan.ct}, lesions, f"phantom {seed}")


def saved(folder: Path, network: torch.nn.Module, patch: tuple[int, int, int] = (16, 12, 16)) -> Path:
    arguments = dict(NETWORK.arguments) | {"spacing_mm": list(SPACING), "patch": list(patch)}
    card = models.Card(
        "fdg_segmentation",
        models.Architecture(NETWORK.name, arguments),
        data="one phantom",
        commit="none",
        seed=1,
        metrics={},
        intended_use="Tests.",
        created=datetime(2026, 12, 1, tzinfo=UTC),
    )
    path = folder / "mini.safetensors"
    models.save(path, network.state_dict(), card)
    return path


def random_network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return model.build(NETWORK.name, NETWORK.arguments).eval()


# Preparation


def test_each_modality_has_mean_0_and_deviation_1_over_the_cropped_body() -> None:
    seen = prepared(case().volumes["pet"], case().volumes["ct"], SPACING)
    assert seen.image.dtype == np.float32
    for image in seen.image:
        assert abs(image.mean(dtype=np.float64)) < 1e-5
        assert image.std(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    slope, offset = np.polyfit(seen.suv.ravel(), seen.image[0].ravel(), 1)
    np.testing.assert_allclose(seen.image[0], slope * seen.suv + offset, atol=1e-4)


def test_the_crop_is_the_body_and_three_voxels_around_it() -> None:
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[10:30, 12:28, 11:33] = 40.0
    hu[12:20, 14:20, 15:20] = -800.0  # lung
    hu[2:6, 2:6, 2:6] = 300.0  # not connected with the body
    affine = np.diag([10.0, 10.0, 10.0, 1.0])[[2, 1, 0, 3]]
    affine[:3, :3] = np.diag([10.0, 10.0, 10.0])[::-1]
    pet = Volume(np.where(hu > 0, 1.0, 0.01).astype(np.float32), affine, Quantity.SUVBW)
    pet.array[2:6, 2:6, 2:6] = 0.0
    seen = prepared(pet, Volume(hu, affine, Quantity.HU), (10.0, 10.0, 10.0))
    assert seen.image.shape == (2, 26, 22, 28)
    np.testing.assert_allclose(seen.affine[:3, 3], [80.0, 90.0, 70.0])  # x from 11 − 3, y from 12 − 3, z from 10 − 3
    assert seen.body.sum() == 20 * 16 * 22 - 8 * 6 * 5


def test_a_value_that_never_changes_has_no_z_score() -> None:
    with pytest.raises(CannotProcess, match="values that differ"):
        z_score(np.full((3, 3, 3), 2.0, np.float32), "pet")


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.floats(-0.6, 0.6)] * 3), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3), st.integers(0, 2**32 - 1)
)
def test_a_place_stays_a_place_for_oblique_anisotropic_and_flipped_grids(
    angles: tuple[float, float, float], signs: tuple[float, float, float], seed: int
) -> None:
    affine = oblique(angles, signs, (4.0, 2.5, 3.0))
    shape = (20, 24, 22)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    wave = np.random.default_rng(seed).normal(size=3) * 0.02
    volume = Volume((10.0 + world @ wave).astype(np.float32), affine, Quantity.SUVBW)
    grid, size = patient_grid(volume, (3.0, 3.0, 3.0))
    there = sampled(volume, grid, size, outside=np.nan)
    back = back_on_grid_of(volume, there, grid, outside=np.nan)
    known = np.isfinite(back)
    assert known[5:-5, 6:-6, 6:-6].mean() > 0.9  # a linear function survives linear interpolation there and back
    np.testing.assert_allclose(back[known], volume.array[known], atol=1e-3)


def oblique(angles: tuple[float, ...], signs: tuple[float, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation[:, ::-1] * np.array(signs) * np.array(spacing_mm)
    affine[:3, 3] = (-40.0, 12.0, 300.0)
    return affine


def test_labels_are_where_half_of_a_voxel_is_labelled() -> None:
    labels = LabelMap(np.zeros((4, 4, 4), np.uint16), np.eye(4), {7: "Lesion"})
    labels.array[1:3, 1:3, 1:3] = 7
    finer = np.diag([0.5, 0.5, 0.5, 1.0])
    mask = on_grid(labels, finer, (7, 7, 7))
    assert mask[2:5, 2:5, 2:5].all()
    assert mask.sum() == 27 + 6 * 9  # a face on half a voxel counts, its edges do not


# Networks


class _LinspaceWithValues(TorchFunctionMode):
    """MONAI reads numbers from a tensor while it builds a network: that one cannot be without values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        where = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **(kwargs or {}), **where)


@pytest.mark.parametrize(
    ("name", "millions"), [("nnunet-31m", 31.2), ("swin-18m", 18.3), ("swin-75m", 74.6), ("swin-319m", 319.2)]
)
def test_presets_have_the_sizes_of_the_paper(name: str, millions: float) -> None:
    network = train.PRESETS[name].network
    with torch.device("meta"), _LinspaceWithValues():
        built = model.build(network.name, network.arguments)
    assert sum(weight.numel() for weight in built.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", ["plain_conv_unet", "dual_branch_unet"])
def test_every_network_gives_classes_and_the_features_its_head_reads(name: str) -> None:
    network = model.build(name, {"widths": [4, 8, 8]}).eval()
    image = torch.randn(1, 2, 8, 12, 16)
    with torch.inference_mode():
        features, classes = network.features(image), network(image)
        assert features.shape == (1, network.width, 8, 12, 16)
        assert classes.shape == (1, 2, 8, 12, 16)
        torch.testing.assert_close(network.head(features), classes)


def test_swin_gives_what_monai_gives_by_way_of_its_features() -> None:
    network = model.build("swin_unetr_v2", {"width": 12, "checkpointing": False}).eval()
    image = torch.randn(1, 2, 32, 64, 32)
    with torch.inference_mode():
        features = network.features(image)
        assert features.shape == (1, network.width, 32, 64, 32)
        torch.testing.assert_close(network.head(features), network.swin(image))
        torch.testing.assert_close(network(image), network.swin(image))


def test_branches_apart_do_not_see_each_other_and_joined_ones_do() -> None:
    image = torch.randn(1, 2, 8, 8, 8)
    other = image.clone()
    other[:, 1] += torch.randn(8, 8, 8)
    for apart in (True, False):
        torch.manual_seed(0)
        network = model.build("dual_branch_unet", {"widths": [4, 8], "apart": apart}).eval()
        with torch.inference_mode():
            pet, changed = network(image)[:, 0], network(other)[:, 0]
        assert torch.equal(pet, changed) is apart


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of plain_conv_unet"):
        model.build("unet", {})


# Patches


def test_patches_are_cut_where_the_drawing_says() -> None:
    truth = np.zeros((40, 30, 30), bool)
    truth[35, 4, 25] = True
    image = np.zeros((2, 40, 30, 30), np.float16)
    image[0, 3, 25, 3] = 9.0
    patches = Patches([Example(image, truth, "a")], Drawing((8, 8, 8), zoom=0.0, lesions=0.5, hot=0.5))
    seen = patches.batch(200, np.random.default_rng(0))
    lesions = seen["truth"].flatten(1).any(dim=1)
    hot = (seen["image"][:, 0] == 9.0).flatten(1).any(dim=1)
    assert (lesions ^ hot).all()
    assert 70 < int(lesions.sum()) < 130
    assert seen["image"].shape == (200, 2, 8, 8, 8)
    assert seen["image"].dtype == torch.float32


def test_an_image_smaller_than_the_patch_is_continued_with_its_edge() -> None:
    image = np.arange(2 * 3 * 4 * 20, dtype=np.float16).reshape(2, 3, 4, 20)
    patches = Patches([Example(image, None, "a")], Drawing((6, 6, 6), zoom=0.0))
    seen = patches.batch(4, np.random.default_rng(0))["image"]
    assert torch.equal(seen[:, :, 2], seen[:, :, 5])
    assert torch.equal(seen[:, :, :, 3], seen[:, :, :, 5])


def test_a_ct_is_hidden_in_the_share_of_patches_that_asks_for_it() -> None:
    image = np.random.default_rng(0).normal(3.0, 1.0, (2, 10, 10, 10)).astype(np.float16)
    patches = Patches([Example(image, None, "a")], Drawing((6, 6, 6), without_ct=0.3))
    drawn = patches.batch(200, np.random.default_rng(1))["image"]
    hidden = (drawn[:, 1] == 0.0).flatten(1).all(dim=1)
    assert 0.2 < hidden.float().mean() < 0.4
    assert (drawn[:, 1][~hidden] != 0.0).all()
    assert (drawn[:, 0] != 0.0).all()


def test_zoomed_patches_keep_their_size_and_a_partial_view_its_order() -> None:
    made = example(case(), SPACING)
    drawing = Drawing((12, 8, 12), zoom=0.1, lesions=0.5, partial_view=1.0)
    seen = Patches([made], drawing).batch(12, np.random.default_rng(1))
    assert seen["image"].shape == (12, 2, 12, 8, 12)
    assert seen["truth"].shape == (12, 1, 12, 8, 12)
    assert torch.isfinite(seen["image"]).all()
    whole = Patches([made], replace(drawing, partial_view=0.0, zoom=0.0)).batch(1, np.random.default_rng(3))["image"]
    part = Patches([made], replace(drawing, zoom=0.0)).batch(1, np.random.default_rng(3))["image"]
    slope = np.polyfit(whole[0, 0].flatten(), part[0, 0].flatten(), 1)[0]
    assert slope > 0.0 and not torch.allclose(whole, part)


# Learning


def test_one_seed_learns_the_same_twice_from_hidden_blocks_to_tumours() -> None:
    tensors = []
    for _ in range(2):
        first = train.pretrain([case()], mini(), Run(4))
        tensors.append(train.finetune([case()], [case()], mini(validate_every=2), Run(4), first.tensors).tensors)
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize(
    "preset",
    [
        mini(token=True),
        mini(visible_weight=0.0),
        mini(network=models.Architecture("dual_branch_unet", {"widths": [4, 8]})),
        mini(network=models.Architecture("dual_branch_unet", {"widths": [4, 8], "apart": True})),
        mini(network=BATCH_NORM),
    ],
    ids=["token", "masked only", "late fusion", "apart", "batch normalisation"],
)
def test_comparators_of_the_paper_train_and_hand_on_their_weights(preset: train.Preset) -> None:
    made = [example(case(), SPACING)]
    first = train.pretrain_on(made, preset, Run(4))
    assert ("token" in first.tensors) is preset.token
    if preset.token:
        assert first.tensors["token"].abs().max() > 0.0  # it learned
    started = train.started_from(first.tensors, preset, 5)
    for name, tensor in started.state_dict().items():
        same = torch.equal(tensor, first.tensors[name])
        assert same or name.startswith("head."), name
    probe = train.probe_on(made, preset, Run(5), first.tensors)
    changed = {name for name, tensor in probe.tensors.items() if not torch.equal(tensor, started.state_dict()[name])}
    assert changed == {"head.weight", "head.bias"}


def test_the_head_of_reconstruction_is_not_kept() -> None:
    first = train.pretrain([case()], mini(), Run(4)).tensors
    started = train.started_from(first, mini(), 4).state_dict()
    assert not torch.equal(started["head.weight"], first["head.weight"])
    assert torch.equal(started["encoder.0.0.conv.weight"], first["encoder.0.0.conv.weight"])


def test_weights_of_another_network_are_refused() -> None:
    wrong = random_network().state_dict() | {"encoder.0.0.conv.weight": torch.zeros(5, 2, 3, 3, 3)}
    with pytest.raises(train.OtherNetwork, match=r"encoder\.0\.0\.conv\.weight"):
        train.started_from(wrong, mini(), 0)


@cache
def overfitted() -> tuple[dict[str, torch.Tensor], float]:
    preset = mini(
        network=models.Architecture("plain_conv_unet", {"widths": [8, 16], **ONCE}),
        drawing=Drawing((24, 20, 24), lesions=0.7, hot=0.3),
        finetuning=Schedule(100, 1e-2, precision="float32"),
    )
    made = [example(case(), SPACING)]
    trained = train.finetune_on(made, [], preset, Run(1), None)
    return trained.tensors, train.mean_dice(train.started_with(trained.tensors, preset), made, preset)


def test_a_small_network_learns_one_case_by_heart() -> None:
    assert overfitted()[1] > 0.8


# Windows


def test_windows_of_our_own_and_of_monai_agree() -> None:
    from monai.inferers.utils import sliding_window_inference

    network = random_network()
    image = np.random.default_rng(0).normal(size=(2, 32, 24, 32)).astype(np.float32)
    ours = predicted(network, image, Tiling((16, 12, 16), 0.5, "constant"), never)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        theirs = sliding_window_inference(
            torch.from_numpy(image)[None], (16, 12, 16), 1, lambda part: network(part).float().softmax(dim=1), 0.5
        )
    np.testing.assert_allclose(ours, theirs[0, 1].numpy(), atol=0.01)


def test_only_windows_worth_a_look_are_predicted_and_nothing_is_lost_there() -> None:
    network = random_network()
    image = np.random.default_rng(0).normal(size=(2, 48, 24, 48)).astype(np.float32)
    worth = np.zeros((48, 24, 48), bool)
    worth[4:10, 3:9, 20:24] = worth[40, 20, 24] = True
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    tiling = Tiling((16, 12, 16), 0.0)
    found = predicted(network, image, tiling, never, worth)
    assert len(calls) < 3 * 2 * 3
    assert found.shape == (48, 24, 48)
    assert (found[worth] > 0.0).all()
    calls.clear()
    assert not predicted(network, image, tiling, never, np.zeros_like(worth)).any()
    assert not calls


def network_that_has_seen_something() -> torch.nn.Module:
    """With batch normalisation whose statistics are not those it begins with."""
    torch.manual_seed(0)
    network = model.build(BATCH_NORM.name, BATCH_NORM.arguments)
    for _ in range(20):
        network(3.0 * torch.randn(2, 2, 16, 12, 16) + 1.0)
    return network.eval()


def test_without_normalisation_over_the_window_one_window_takes_the_whole_image() -> None:
    network = network_that_has_seen_something()
    image = np.random.default_rng(0).normal(size=(2, 45, 22, 48)).astype(np.float32)
    sizes = []
    network.register_forward_hook(lambda _, given, __: sizes.append(tuple(given[0].shape[2:])))
    found = predicted(network, image, Tiling((16, 12, 16)), never)
    assert sizes == [(46, 22, 48)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
        whole = network(torch.from_numpy(np.pad(image, ((0, 0), (0, 1), (0, 0), (0, 0)), mode="edge"))[None])
    np.testing.assert_allclose(found, whole.float().softmax(dim=1)[0, 1, :45].numpy(), atol=1e-6)


def test_tiles_become_smaller_until_they_fit_into_memory() -> None:
    network = network_that_has_seen_something()
    image = np.random.default_rng(0).normal(size=(2, 48, 24, 48)).astype(np.float32)
    whole = predicted(network, image, Tiling((16, 12, 16)), never)
    sizes = []

    def little_memory(_: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        sizes.append(given[0][0, 0].numel())
        if sizes[-1] > 20_000:
            raise torch.OutOfMemoryError("tried to allocate more than there is")

    network.register_forward_pre_hook(little_memory)
    found = predicted(network, image, Tiling((16, 12, 16)), never)
    assert sizes[0] == 48 * 24 * 48
    assert sizes[-1] <= 20_000
    inside = (slice(20, 28), slice(8, 16), slice(20, 28))
    np.testing.assert_allclose(found[inside], whole[inside], atol=0.02)
    network.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        predicted(network, image, Tiling((16, 12, 16)), never)


def test_a_fused_network_says_the_same() -> None:
    network = network_that_has_seen_something()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, 16, 12, 16)).astype(np.float32))
    with torch.inference_mode():
        before = network(image)
        after = model.fused(network)(image)
    assert not any(isinstance(part, torch.nn.BatchNorm3d) for part in network.modules())
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-5)


sides = st.integers(1, 90)


@given(st.tuples(sides, sides, sides), st.integers(300, 400_000))
def test_a_tile_covers_the_box_or_fits_into_memory(extent: tuple[int, int, int], voxels_max: int) -> None:
    window = (16, 12, 8)
    found = tile(tuple(slice(5, 5 + n) for n in extent), window, 4, voxels_max)
    assert all(n % 4 == 0 and n >= least for n, least in zip(found, window, strict=True))
    assert np.prod(found) <= voxels_max or found == window
    if np.prod([max(least, n + 3) for n, least in zip(extent, window, strict=True)]) <= voxels_max:
        assert all(n >= side for n, side in zip(found, extent, strict=True))


@pytest.mark.parametrize(("box", "grown"), [((3, 5), (1, 7)), ((0, 2), (0, 6)), ((9, 10), (4, 10)), ((1, 9), (1, 9))])
def test_a_box_grows_about_its_middle_and_stays_in_the_image(box: tuple[int, int], grown: tuple[int, int]) -> None:
    whole = slice(0, 3)
    assert at_least((slice(*box), whole, whole), (6, 3, 3), (10, 3, 3))[0] == slice(*grown)


# The engine


def test_the_label_map_lies_on_the_grid_of_the_pet_whatever_its_axes(tmp_path: Path) -> None:
    straight = FdgSegmentation(saved_overfitted(tmp_path))(case().volumes, PLAIN, never)
    assert straight.label_map is not None
    pet = case().volumes["pet"]
    turned = Volume(np.ascontiguousarray(pet.array[::-1, :, ::-1].transpose(0, 2, 1)), turned_affine(pet), pet.quantity)
    there = FdgSegmentation(tmp_path / "mini.safetensors")({"pet": turned, "ct": case().volumes["ct"]}, PLAIN, never)
    assert there.label_map is not None
    np.testing.assert_array_equal(there.label_map.affine, turned.affine)
    back = there.label_map.array.transpose(0, 2, 1)[::-1, :, ::-1] > 0
    np.testing.assert_array_equal(back, straight.label_map.array > 0)
    np.testing.assert_allclose(
        sorted(lesion.centroid_mm for lesion in there.lesions),
        sorted(lesion.centroid_mm for lesion in straight.lesions),
        atol=1e-6,
    )


def turned_affine(pet: Volume) -> np.ndarray:
    """Of the array flipped along z and x, then with y and x exchanged."""
    flip = np.eye(4)
    for axis in (0, 2):
        flip[axis, axis], flip[axis, 3] = -1.0, pet.array.shape[axis] - 1
    return (pet.affine @ flip)[:, [0, 2, 1, 3]]


def saved_overfitted(folder: Path) -> Path:
    tensors, _ = overfitted()
    arguments = dict(NETWORK.arguments) | {"widths": [8, 16], "spacing_mm": list(SPACING), "patch": [24, 20, 24]}
    path = saved(folder, random_network())
    models.save(path, tensors, replace(models.card_of(path), architecture=models.Architecture(NETWORK.name, arguments)))
    return path


def test_products_hold_lesions_with_their_measures_and_confidence(tmp_path: Path) -> None:
    products = FdgSegmentation(saved_overfitted(tmp_path))(case().volumes, PLAIN, never)
    pet = case().volumes["pet"]
    assert products.lesions
    assert products.label_map is not None
    assert {lesion.label for lesion in products.lesions} == set(np.unique(products.label_map.array)) - {0}
    for lesion in products.lesions:
        inside = products.label_map.array == lesion.label
        assert lesion.volume_ml == pytest.approx(inside.sum() * pet.voxel_volume_ml)
        assert lesion.suv_max == pytest.approx(float(pet.array[inside].max()))
        assert lesion.confidence is not None
        assert 0.5 < lesion.confidence <= 1.0
    totals = {measurement.name: measurement.value for measurement in products.measurements}
    assert totals["MTV"] == pytest.approx(sum(lesion.volume_ml for lesion in products.lesions))
    assert "one phantom" in products.warnings[0]
    (score,) = evaluate(FdgSegmentation(tmp_path / "mini.safetensors"), [case()], PLAIN).scores
    assert score.dice is not None
    assert score.dice > 0.6


def test_the_same_study_gives_the_same_answer_and_parameters_change_it(tmp_path: Path) -> None:
    tool = FdgSegmentation(saved_overfitted(tmp_path))
    first, again = (tool(case().volumes, PLAIN, never) for _ in range(2))
    assert first.label_map is not None and again.label_map is not None
    np.testing.assert_array_equal(first.label_map.array, again.label_map.array)
    strict = tool(case().volumes, PLAIN | {"threshold": 0.9}, never)
    assert sum(lesion.voxels for lesion in strict.lesions) < sum(lesion.voxels for lesion in first.lesions)
    assert len(tool(case().volumes, PLAIN | {"max_lesions": 1}, never).lesions) == 1
    sure = max(lesion.confidence for lesion in first.lesions)
    surest = tool(case().volumes, PLAIN | {"min_confidence": sure}, never).lesions
    assert [lesion.confidence for lesion in surest] == [sure]
    assert tool(case().volumes, PLAIN | {"mirroring": True}, never).label_map is not None


def test_the_wrong_ct_is_refused(tmp_path: Path) -> None:
    tool = FdgSegmentation(saved(tmp_path, random_network()))
    pet, ct = case().volumes["pet"], case().volumes["ct"]

    def refused(volumes: dict[str, Volume]) -> str:
        with pytest.raises(CannotProcess) as refusal:
            tool(volumes, {}, never)
        return refusal.value.code

    moved = ct.affine.copy()
    moved[2, 3] += 400.0
    aside = ct.affine.copy()
    aside[0, 3] += 150.0
    assert refused({"pet": pet}) == "missing-input"
    assert refused({"pet": pet, "ct": replace(ct, affine=moved)}) == "ct-not-paired"
    assert refused({"pet": pet, "ct": replace(ct, affine=aside)}) == "ct-not-paired"
    assert refused({"pet": pet, "ct": replace(ct, array=ct.array - 1000.0)}) == "no-body"
    assert refused({"pet": replace(pet, array=pet.array * 0.0), "ct": ct}) == "empty-image"
    assert refused({"pet": replace(pet, quantity=Quantity.ACTIVITY_BQML), "ct": ct}) == "wrong-quantity"
    assert refused({"pet": replace(pet, array=pet.array * np.float32(np.nan)), "ct": ct}) == "not-finite"


def test_a_rule_may_ask_for_the_pet_alone_and_the_result_says_so(tmp_path: Path) -> None:
    tool = FdgSegmentation(saved_overfitted(tmp_path))
    pet, ct = case().volumes["pet"], case().volumes["ct"]
    alone = tool({"pet": pet}, PLAIN | {"without_ct": "pet-only"}, never)
    assert alone.label_map is not None
    assert "by PET alone" in alone.warnings[0]
    far = ct.affine.copy()
    far[2, 3] += 400.0
    unpaired = tool({"pet": pet, "ct": replace(ct, affine=far)}, PLAIN | {"without_ct": "pet-only"}, never)
    np.testing.assert_array_equal(unpaired.label_map.array, alone.label_map.array)
    assert "by PET alone" in unpaired.warnings[0] and "of the activity" in unpaired.warnings[0]
    both = tool({"pet": pet, "ct": ct}, PLAIN | {"without_ct": "pet-only"}, never)
    assert not any("by PET alone" in warning for warning in both.warnings)
    with pytest.raises(CannotProcess) as refusal:
        tool({"pet": replace(pet, array=pet.array * 0.0)}, PLAIN | {"without_ct": "pet-only"}, never)
    assert refusal.value.code == "no-body"


def test_the_body_without_a_ct_is_where_the_activity_is() -> None:
    suv = np.zeros((30, 30, 30), np.float32)
    suv[5:25, 6:24, 7:23] = 1.0
    suv[8:12, 10:14, 10:14] = 0.0  # as cold as air, inside
    affine = np.eye(4)
    affine[:3, :3] = np.diag([10.0, 10.0, 10.0])[::-1]
    seen = prepared(Volume(suv, affine, Quantity.SUVBW), None, (10.0, 10.0, 10.0))
    assert seen.body.shape == (20 + 2 + 6, 18 + 2 + 6, 16 + 2 + 6)  # neighbours reach one voxel further, 3 are margin
    assert seen.body[tuple(n // 2 for n in seen.body.shape)]
    assert not seen.image[1].any()
    assert seen.image[0].mean() == pytest.approx(0.0, abs=1e-5)


def test_it_stops_when_asked_and_refuses_parameters_with_every_fault(tmp_path: Path) -> None:
    tool = FdgSegmentation(saved(tmp_path, random_network()))
    with pytest.raises(Stopped):
        tool(case().volumes, {}, lambda: True)
    with pytest.raises(BadParameters) as refusal:
        tool({}, {"threshold": 1.5, "mirroring": 1, "size": 3}, never)
    for words in (
        "threshold: expected a number from 0.01 to 0.99",
        "mirroring: expected false or true",
        "size: unknown",
    ):
        assert words in str(refusal.value)


def test_altered_weights_and_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, random_network())
    arguments = dict(models.card_of(path).architecture.arguments) | {"widths": [4, 16]}
    card = replace(models.card_of(path), architecture=models.Architecture(NETWORK.name, arguments))
    other = tmp_path / "other.safetensors"
    models.save(other, random_network().state_dict(), card)
    with pytest.raises(WeightsRefused) as refusal:
        FdgSegmentation(other)(case().volumes, {}, never)
    assert refusal.value.code == "other-architecture"
    altered = tmp_path / "altered.safetensors"
    altered.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    models.card_path(altered).write_bytes(models.card_path(path).read_bytes())
    with pytest.raises(WeightsRefused) as refusal:
        FdgSegmentation(altered)(case().volumes, {}, never)
    assert refusal.value.code == "sha256"


def test_weights_that_were_replaced_since_are_refused(tmp_path: Path) -> None:
    tool = FdgSegmentation(saved(tmp_path, random_network(1)))
    saved(tmp_path, random_network(2))
    with pytest.raises(WeightsRefused) as refusal:
        tool(case().volumes, {}, never)
    assert refusal.value.code == "sha256"
    assert FdgSegmentation(tmp_path / "mini.safetensors").weights_sha256 != tool.weights_sha256


def test_cold_tissue_and_air_are_not_looked_at() -> None:
    seen = prepared(case().volumes["pet"], case().volumes["ct"], SPACING)
    worth = worth_a_look(seen)
    assert not worth[~seen.body].any()
    truth = case().truth
    assert truth is not None
    lesions = on_grid(truth, seen.affine, seen.body.shape)
    assert worth[lesions].any()
    assert 0.02 < worth.mean() < 0.5


# What is shipped


def test_the_shipped_engine_is_named_without_torch_and_says_what_it_is() -> None:
    code = (
        "import sys\n"
        "from engines.registry import engine, names\n"
        "names(); e = engine('fdg_segmentation'); e.check({}); print(e.weights_sha256)\n"
        "sys.exit(bool({'torch', 'monai', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    tool = engine("fdg_segmentation")
    assert isinstance(tool, FdgSegmentation)
    assert ran.stdout.strip() == tool.weights_sha256 == models.load(tool.weights).sha256
    card = models.card_of(tool.weights)
    assert card.engine == tool.name
    assert "simulated" in card.data
    assert tool.weights.stat().st_size <= 10e6
    model.from_weights(models.load(tool.weights))
