"""Models of the node: weights that were imported or trained, and which of them its jobs use.

A set of weights lies in models/SHA256.safetensors with its card, and has a row. Jobs take the champion of their engine,
or the weights the engine is shipped with where there is none; the digest is part of the job's key.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from daemon.node import Folders, Turn
from db import models, schema
from dicom_io.spool import fsync_directory
from engines.contract import Engine
from engines.errors import WeightsRefused
from engines.models import SUFFIX, Card, card_of, card_path


def weights_path(folders: Folders, sha256: str) -> Path:
    """Where the weights of a model lie."""
    return folders.models / f"{sha256}{SUFFIX}"


def weights_of(turn: Turn, method: Engine) -> str | None:
    """Digest of the weights that a new job of an engine uses: the champion's, else the shipped ones'."""
    found = models.champion(turn.session, method.name)
    return method.weights_sha256 if found is None else found.sha256


def path_for_job(turn: Turn, job: schema.Job, method: Engine) -> str | None:
    """Path of the weights that a job was made for; None = the engine's own."""
    if job.model_sha256 == method.weights_sha256 or job.model_sha256 is None:
        return None
    return str(weights_path(turn.node.folders, job.model_sha256).resolve())


def keep(folders: Folders, weights: Path) -> str:
    """Copy weights and card into the node's folder under their digest; returns it. Doing it twice changes nothing.

    Raises
    ------
    WeightsRefused
        As `engines.models.card_of`, and sha256.
    """
    digest = verified(weights).sha256
    assert digest is not None  # noqa: S101 - a card that was read has one
    folders.models.mkdir(exist_ok=True)
    target = weights_path(folders, digest)
    for source, place in ((weights, target), (card_path(weights), card_path(target))):
        passing = place.with_name(f".{place.name}.part")
        shutil.copyfile(source, passing)
        passing.replace(place)
    fsync_directory(folders.models)
    verified(target)
    return digest


def verified(weights: Path) -> Card:
    """The card of weights whose bytes are those it names."""
    card = card_of(weights)
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsRefused(f"{weights.name}: expected weights, got {error}", code="no-weights") from error
    if digest != card.sha256:
        raise WeightsRefused(f"{weights.name}: expected the weights of its card, got others", code="sha256")
    return card
