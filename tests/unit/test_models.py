"""Weights and their cards: what is written is read back, and nothing else is."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
import yaml

from engines import models
from engines.errors import WeightsRefused
from engines.models import RESEARCH_ONLY, Architecture, Card, card_of, card_path, load, save

ROOT = Path(__file__).resolve().parents[2]
CARD = Card(
    engine="fdg_segmentation",
    architecture=Architecture("plain_unet", {"features": [8, 16], "dropout": 0.0, "deep_supervision": False}),
    data="Simulated studies of cohort fdg-train",
    commit="0123456",
    seed=7,
    metrics={"dice": {"value": 0.5, "interval": [0.4, 0.6], "n": 30}, "why": "1e5"},
    intended_use=RESEARCH_ONLY,
    created=datetime(2026, 12, 1, 11, 0, tzinfo=UTC),
)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((2, 3, 4), generator=generator)
    return {
        "a.weight": weight,
        "a.transposed": weight.T if weight.ndim == 2 else weight.permute(2, 0, 1),
        "a.same": weight,
        "count": torch.tensor(3),
        "half": weight.to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }


def refusal(path: Path) -> str:
    with pytest.raises(WeightsRefused) as refused:
        load(path)
    assert refused.value.hint
    return refused.value.code


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    digest = save(path, tensors(), CARD)
    found = load(path)
    assert found.sha256 == digest == found.card.sha256
    assert replace(found.card, sha256=None) == CARD
    assert {name: value.dtype for name, value in found.tensors.items()} == {
        name: value.dtype for name, value in tensors().items()
    }
    for name, value in tensors().items():
        assert found.tensors[name].shape == value.shape
        assert torch.equal(found.tensors[name], value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.safetensors", "one.yaml"]


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "a.safetensors", tensors(), CARD) == save(tmp_path / "b.safetensors", tensors(), CARD)


def test_loaded_tensors_can_be_trained_on(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tensors(), CARD)
    weight = load(tmp_path / "a.safetensors").tensors["a.weight"]
    weight.add_(1.0)
    assert torch.equal(weight, tensors()["a.weight"] + 1.0)


@pytest.mark.parametrize("offset", [0, 7, 200, -1])
def test_one_changed_bit_is_refused(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "one.safetensors"
    save(path, tensors(), CARD)
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    assert refusal(path) == "sha256"


def test_a_crash_between_weights_and_card_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save(path, tensors(), CARD)
    card = card_path(path).read_bytes()
    save(path, {"other": torch.ones(1)}, CARD)
    card_path(path).write_bytes(card)
    assert refusal(path) == "sha256"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    assert refusal(path) == "no-card"
    save(path, tensors(), CARD)
    path.unlink()
    assert refusal(path) == "no-weights"


@pytest.mark.parametrize("name", ["one.pth", "one.pkl", "one", "one.safetensors.pt"])
def test_other_files_are_not_even_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert refusal(tmp_path / name) == "not-safetensors"
    with pytest.raises(WeightsRefused):
        save(tmp_path / name, tensors(), CARD)


def test_a_card_that_matches_bytes_that_are_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save(path, tensors(), CARD)
    before = card_of(path).sha256
    content = b"\xff" * 64
    path.write_bytes(content)
    text = card_path(path).read_text().replace(str(before), __import__("hashlib").sha256(content).hexdigest())
    card_path(path).write_text(text)
    assert refusal(path) == "unreadable-weights"


def test_weights_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.safetensors"
    save(path, tensors(), CARD)
    monkeypatch.setattr(models, "BYTES_MAX", path.stat().st_size)
    load(path)
    monkeypatch.setattr(models, "BYTES_MAX", path.stat().st_size - 1)
    assert refusal(path) == "too-large"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", "ab"),
        ("sha256", None),
        ("engine", ""),
        ("engine", "../x"),
        ("architecture", "plain"),
        ("architecture", {"name": "a", "arguments": {}, "more": 1}),
        ("seed", "seven"),
        ("metrics", []),
        ("created", "2026-12-01T11:00:00"),
        ("note", "unknown"),
    ],
)
def test_cards_with_a_fault(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "one.safetensors"
    save(path, tensors(), CARD)
    document = yaml.safe_load(card_path(path).read_text())
    card_path(path).write_text(json.dumps(document | {key: value}))
    with pytest.raises(WeightsRefused, match=key) as refused:
        card_of(path)
    assert refused.value.code == "bad-card"


@pytest.mark.parametrize("text", ["{", "a: &a [*a]", "!!python/object/apply:os.system [false]", "\x00", "", "- 1"])
def test_texts_that_are_no_card(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.safetensors"
    card_path(path).write_text(text)
    assert refusal(path) == "bad-card"


@pytest.mark.parametrize(
    "word", ["1e5", "yEs", "null", "~", "", "0104", "1:30", "a: b", "- a", "ä\nb  c ", "12e3", "#", "x" * 300]
)
def test_text_in_cards_stays_as_it_is(tmp_path: Path, word: str) -> None:
    path = tmp_path / "one.safetensors"
    card = replace(
        CARD,
        commit=word,
        data=word,
        metrics={"word": word},
        created=CARD.created.astimezone(timezone(timedelta(hours=2))),
    )
    save(path, tensors(), card)
    assert replace(card_of(path), sha256=None) == card


def test_numbers_that_json_has_not_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "one.safetensors", tensors(), replace(CARD, metrics={"dice": float("nan")}))
    assert not list(tmp_path.iterdir())


def test_a_card_is_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    digest = save(path, tensors(), CARD)
    code = (
        "import sys, pathlib; from engines.models import card_of;"
        "print(card_of(pathlib.Path(sys.argv[1])).sha256); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, digest)
