"""Weights on disk: NAME.safetensors and its card, NAME.yaml. Tensors only; nothing here is ever unpickled.

The card names the SHA-256 of the weights and is written last: weights that are not the ones of their card are refused.
Reading a card needs no torch, so that the daemon can say which weights a job will use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import yaml
from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError

from config.document import NotYaml, read_yaml
from engines import durable
from engines.contract import Json
from engines.errors import WeightsRefused

if TYPE_CHECKING:
    import torch

SUFFIX = ".safetensors"
BYTES_MAX = 4 * 2**30
"""Of one file of weights: the largest published network, 319 million parameters, takes 1.3 GB in single precision."""
RESEARCH_ONLY = "Research only: not a medical device, not for clinical decisions."
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Architecture:
    """A network by the name its engine builds it from, and what that builder is told."""

    name: _Word
    arguments: Mapping[str, Json] = field(default_factory=dict)

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True)
class Card:
    """What must be known of weights before they are used.

    data : what they were trained on, in words; commit : of the program that trained them; seed : None where not known
    metrics : results by name, with where they were measured
    created : when, with its time zone
    start_only : to train from, not to make results with
    sha256 : of the file of weights; `save` fills it in
    """

    engine: _Word
    architecture: Architecture
    data: str
    commit: str
    seed: int | None
    metrics: Mapping[str, Json]
    intended_use: str
    created: AwareDatetime
    start_only: bool = False
    sha256: _Digest | None = None

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    def to_json(self) -> dict[str, Any]:
        """As plain JSON. Raises ValueError where metrics or arguments hold what JSON cannot."""
        document = asdict(self) | {"created": self.created.isoformat()}
        plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
        return plain


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name on the CPU, the digest of the file they came from, and their card."""

    tensors: dict[str, torch.Tensor]
    sha256: str
    card: Card


def load(path: Path) -> Weights:
    """The weights of X.safetensors, after its bytes were compared with its card.

    Raises
    ------
    WeightsRefused
        not-safetensors, no-weights, too-large, sha256, unreadable-weights; and as `card_of`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    card = card_of(path)
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        message = f"{path.name}: expected the weights of its card, {card.sha256}, got {digest}"
        raise WeightsRefused(message, code="sha256")
    try:
        return Weights(tensors_of(content), digest, card)
    except SafetensorError as error:
        raise WeightsRefused(f"{path.name}: expected safetensors, got {error}", code="unreadable-weights") from error


def save(path: Path, tensors: Mapping[str, torch.Tensor], card: Card) -> str:
    """Write X.safetensors and X.yaml, each whole or not at all; returns the SHA-256 of the weights.

    tensors : of any device; each is written by itself, also where tensors share memory

    Raises
    ------
    WeightsRefused
        not-safetensors: the name of the file.
    ValueError
        The card holds what JSON cannot.
    """
    from safetensors.torch import save as bytes_of

    _check_name(path)
    content = bytes_of({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    text = card_text(replace(card, sha256=digest))
    durable.replace(path, lambda file: file.write(content))
    durable.replace(card_path(path), lambda file: file.write(text.encode()))
    return digest


def card_path(path: Path) -> Path:
    """Where the card of weights lies."""
    return path.with_suffix(".yaml")


def card_of(path: Path) -> Card:
    """The card of X.safetensors; the weights themselves are not looked at, and torch is not needed.

    Raises
    ------
    WeightsRefused
        not-safetensors, no-card, bad-card.
    """
    _check_name(path)
    card = card_path(path)
    try:
        content = read_yaml(card.read_bytes()).content
        found = _CARD.validate_python(content)
    except OSError as error:
        raise WeightsRefused(f"{card.name}: expected the card of {path.name}, got {error}", code="no-card") from error
    except NotYaml as error:
        raise WeightsRefused(f"{card.name}: {error}", code="bad-card") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "card"
        raise WeightsRefused(f"{card.name}: {where}: {first['msg']}", code="bad-card") from error
    if found.sha256 is None:
        raise WeightsRefused(f"{card.name}: sha256: expected that of {path.name}, got none", code="bad-card")
    return found


def card_from_json(document: Json) -> Card:
    """The reverse of `Card.to_json`. Raises pydantic.ValidationError, a ValueError."""
    return _CARD.validate_python(document)


def card_text(card: Card) -> str:
    """A card as YAML that `card_of` reads back as it was."""
    return yaml.dump(card.to_json(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _check_name(path: Path) -> None:
    if path.suffix != SUFFIX:
        message = f"{path.name}: expected weights as NAME{SUFFIX}, got {path.suffix or 'no suffix'}"
        hint = "`tracerd models import` makes safetensors of a PyTorch checkpoint without running what is in it."
        raise WeightsRefused(message, code="not-safetensors", hint=hint)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise WeightsRefused(f"{path.name}: expected weights, got {error}", code="no-weights") from error
    if len(content) > BYTES_MAX:
        raise WeightsRefused(f"{path.name}: expected at most {BYTES_MAX} bytes, got more", code="too-large")
    return content


class _Dumper(yaml.SafeDumper):
    """YAML in which text that `config.document` would take for a number or a truth value stands in quotes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        plain = data[:1].isalpha() and data.casefold() not in {"yes", "no", "on", "off", "true", "false", "null"}
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_str)
_CARD: TypeAdapter[Card] = TypeAdapter(Card)
