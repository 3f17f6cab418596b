"""What a person may do with the node's models: take in, look at, promote, roll back; each as one transaction."""

from __future__ import annotations

from typing import Any

from daemon.commands import CannotDo, history
from daemon.models import verified, weights_of, weights_path
from daemon.node import Turn
from db import models, schema
from db.moves import move, note
from db.states import ModelState
from engines.registry import engine

PREFIX_MIN = 6
"""Characters of a digest that are enough to name a model, if only one begins like that."""
NEXT = {ModelState.CANDIDATE: ModelState.SHADOW, ModelState.SHADOW: ModelState.CHAMPION}
NEXT_OF_RETIRED = ModelState.CHAMPION


def register(turn: Turn, digest: str, *, actor: str) -> dict[str, Any]:
    """Make a candidate of weights that lie in the node's folder; those that are known stay what they are."""
    card = verified(weights_path(turn.node.folders, digest))
    if turn.session.get(schema.Model, digest) is None:
        method = engine(card.engine)
        row = schema.Model(
            sha256=digest,
            engine=card.engine,
            version=method.version,
            scope="",
            card=card.to_json(),
            state=ModelState.CANDIDATE,
        )
        turn.session.add(row)
        note(turn.session, row, reason="imported", actor=actor, at=turn.now)
    return describe(turn, digest)


def model_row(turn: Turn, digest: str) -> schema.Model:
    """The model whose digest begins like this."""
    found = models.by_prefix(turn.session, digest) if len(digest) >= PREFIX_MIN else []
    if len(found) != 1:
        wanted = f"at least {PREFIX_MIN} characters of the digest of one model"
        raise CannotDo(f"expected {wanted}, got {digest!r}, which {len(found)} have; see `tracerd models list`")
    return found[0]


def promote(turn: Turn, digest: str, *, because: str, actor: str) -> dict[str, Any]:
    """One step up: candidate → shadow → champion; a retired champion comes back. The old champion is retired."""
    row = model_row(turn, digest)
    _check_reason(because)
    to = NEXT_OF_RETIRED if row.state == ModelState.RETIRED else NEXT.get(ModelState(row.state))
    if to is None:
        raise CannotDo(f"model {row.sha256[:12]} is the champion already")
    if row.state == ModelState.RETIRED and not _was_champion(turn, row):
        raise CannotDo(f"model {row.sha256[:12]} was retired without ever having been champion; import it again")
    if row.card.get("start_only"):
        text = f"model {row.sha256[:12]} is a start for training, not for results"
        raise CannotDo(f"{text}; `tracerd train {row.engine} --start` makes one that is")
    if to is ModelState.CHAMPION:
        verified(weights_path(turn.node.folders, row.sha256))
        _crown(turn, row, because=because, actor=actor)
    else:
        move(turn.session, row, to, reason=f"promoted: {because}", actor=actor, at=turn.now)
    return describe(turn, row.sha256)


def rollback(turn: Turn, name: str, *, because: str, actor: str) -> dict[str, Any]:
    """Back to the champion before, or to the shipped weights; new jobs of the engine use them."""
    _check_reason(because)
    now = models.champion(turn.session, name)
    if now is None:
        raise CannotDo(f"{name} has no champion: it uses the weights it is shipped with")
    before = models.champion_before(turn.session, now)
    if before is None or before.state != ModelState.RETIRED:
        move(turn.session, now, ModelState.RETIRED, reason=f"rolled back: {because}", actor=actor, at=turn.now)
    else:
        verified(weights_path(turn.node.folders, before.sha256))
        _crown(turn, before, because=f"rolled back: {because}", actor=actor)
    return {"engine": name, "weights_sha256": weights_of(turn, engine(name))}


def _crown(turn: Turn, row: schema.Model, *, because: str, actor: str) -> None:
    """The old champion steps down first: the database allows one."""
    old = models.champion(turn.session, row.engine, row.scope)
    if old is not None:
        move(turn.session, old, ModelState.RETIRED, reason=f"replaced: {because}", actor=actor, at=turn.now)
    replaced = {"instead_of": None if old is None else old.sha256}
    move(
        turn.session,
        row,
        ModelState.CHAMPION,
        reason=f"promoted: {because}",
        actor=actor,
        at=turn.now,
        data=replaced,
    )


def _was_champion(turn: Turn, row: schema.Model) -> bool:
    return any(event["to"] == ModelState.CHAMPION for event in history(turn, schema.Model.__tablename__, row.sha256))


def _check_reason(because: str) -> None:
    if not because.strip():
        raise CannotDo("say why with --because; it is kept in the history")


def list_models(turn: Turn, *, name: str | None = None) -> list[dict[str, Any]]:
    """A line for each model."""
    return [_brief(row) for row in models.of_engine(turn.session, name)]


def describe(turn: Turn, digest: str) -> dict[str, Any]:
    """Everything `models show` prints."""
    row = model_row(turn, digest)
    return _brief(row) | {
        "version": row.version,
        "card": row.card,
        "path": turn.node.folders.relative(weights_path(turn.node.folders, row.sha256)),
        "history": history(turn, schema.Model.__tablename__, row.sha256),
    }


def _brief(row: schema.Model) -> dict[str, Any]:
    return {
        "sha256": row.sha256,
        "engine": row.engine,
        "scope": row.scope,
        "state": row.state,
        "architecture": row.card["architecture"]["name"],
        "data": row.card["data"],
        "created": row.card["created"],
    }
