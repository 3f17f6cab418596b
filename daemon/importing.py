"""`tracerd models import`: safetensors with a card, a PyTorch checkpoint, or a folder of nnU-Net → a candidate."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import Settings
from daemon import promotion
from daemon.ask import Request, actor, ask
from daemon.commands import CannotDo
from daemon.models import keep
from daemon.node import TRACERD_VERSION, Folders, utc_now
from engines import models
from engines.errors import EngineError
from engines.models import SUFFIX, Architecture, Card

CHECKPOINTS = (".pth", ".pt", ".ckpt")
START = "To train from, not to make results with."
JSON_BYTES_MAX = 64 * 2**20
LISTED = ("plans.json", "dataset.json")


class NotImportable(EngineError):
    """A path that holds no weights we know how to read."""

    code = "not-importable"
    hint = "Name a .safetensors with its card, a .pth, or nnU-Net's folder with plans.json, dataset.json and fold_0."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `tracerd models import` was asked for.

    architecture : a preset of the engine, for a .pth; fold : of a results folder of nnU-Net
    key : the entry of the .pth that holds the network
    """

    path: Path
    engine: str
    architecture: str | None = None
    fold: str = "0"
    key: str | None = None


def import_weights(wanted: Wanted, out: Path | None, settings: Settings | None) -> dict[str, Any]:
    """Convert where needed, then keep: in `out` alone, or in the node of `settings` as a candidate.

    Raises
    ------
    NotImportable
        not-importable, and what is missing.
    engines.errors.EngineError
        The checkpoint is refused, or is not of the architecture.
    daemon.commands.CannotDo, db.errors.DatabaseError
        The node cannot take it.
    """
    if settings is not None:  # before an hour's conversion: is there a node?
        ask(settings, Request("GET", "/models", promotion.list_models))
    with tempfile.TemporaryDirectory() as passing:
        weights = wanted.path
        if weights.suffix != SUFFIX:
            weights = out or Path(passing) / f"weights{SUFFIX}"
            _convert(wanted, weights)
        elif out is not None:
            raise CannotDo(f"{weights.name} is safetensors already: there is nothing to write with --out")
        if settings is None:
            card = models.card_of(weights)
            return {"path": str(weights), "sha256": card.sha256, "card": card.to_json()}
        digest = keep(Folders(settings.data.resolve()), weights)
    body = {"actor": actor(), "sha256": digest}
    order = Request("POST", "/models", lambda turn: promotion.register(turn, digest, actor=body["actor"]), body)
    done: dict[str, Any] = ask(settings, order)
    return done


def _convert(wanted: Wanted, target: Path) -> None:
    """A published checkpoint as safetensors with a card that says where it came from."""
    if wanted.engine != "fdg_segmentation":
        raise NotImportable(
            f"engine {wanted.engine!r}: expected fdg_segmentation, no other knows published weights yet"
        )
    if wanted.path.is_dir():
        _convert_nnunet(wanted, target)
    elif wanted.path.suffix in CHECKPOINTS and wanted.path.is_file():
        _convert_checkpoint(wanted, target)
    else:
        raise NotImportable(f"{wanted.path}: expected weights, got something else, or nothing")


def _convert_checkpoint(wanted: Wanted, target: Path) -> None:
    from engines.checkpoints import state_dict
    from engines.fdg_segmentation import published
    from engines.fdg_segmentation.train import PRESETS

    preset = PRESETS.get(wanted.architecture or "")
    if preset is None:
        hint = "They have the sizes that the paper names; the others are our own."
        text = f"--architecture: expected one of {', '.join(PRESETS)}, got {wanted.architecture}"
        raise NotImportable(text, code="architecture", hint=hint)
    about_images = {"spacing_mm": list(preset.spacing_mm), "patch": list(preset.drawing.patch)}
    architecture = Architecture(preset.network.name, {**preset.network.arguments, **about_images})
    tensors = published.tensors_of(state_dict(wanted.path, wanted.key), architecture)
    told = (
        f"Published checkpoint {wanted.path.name}, sha256 {_digest(wanted.path)}; what it was trained on is not in it"
    )
    models.save(target, tensors, _card(wanted.engine, architecture, told))


def _convert_nnunet(wanted: Wanted, target: Path) -> None:
    from engines.checkpoints import state_dict
    from engines.fdg_segmentation import published

    files = {name: wanted.path / name for name in LISTED}
    checkpoint = wanted.path / f"fold_{wanted.fold}" / "checkpoint_final.pth"
    missing = [str(path.relative_to(wanted.path)) for path in (*files.values(), checkpoint) if not path.is_file()]
    if missing or not (wanted.fold.isdecimal() or wanted.fold == "all"):
        raise NotImportable(f"{wanted.path}: expected a results folder of nnU-Net v2, without {', '.join(missing)}")
    plans, dataset = (_json(path) for path in files.values())
    found = published.plans_of(plans, dataset)
    tensors = published.tensors_of(
        state_dict(checkpoint, wanted.key or "network_weights"), found.architecture, found.order
    )
    name, cases = dataset.get("name") or plans.get("dataset_name"), dataset.get("numTraining")
    told = (
        f"nnU-Net v2, {name}, {cases} cases, fold {wanted.fold}, {checkpoint.name} sha256 {_digest(checkpoint)}. "
        f"Its inputs were prepared by {found.preparation}"
    )
    models.save(target, tensors, _card(wanted.engine, found.architecture, told))


def _card(engine: str, architecture: Architecture, told: str) -> Card:
    return Card(
        engine=engine,
        architecture=architecture,
        data=told,
        commit=f"imported by tracerd {TRACERD_VERSION}",
        seed=None,
        metrics={},
        intended_use=f"{models.RESEARCH_ONLY} {START}",
        created=utc_now().replace(microsecond=0),
        start_only=True,
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > JSON_BYTES_MAX:
            raise NotImportable(f"{path.name}: expected at most {JSON_BYTES_MAX} bytes, got more")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotImportable(f"{path.name}: expected JSON, got something else") from error
    if not isinstance(document, dict):
        raise NotImportable(f"{path.name}: expected a JSON object, got another value")
    return document


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
