"""Models: registered once per set of weights; at most one champion per engine and scope."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Event, Model
from db.states import ModelState


def by_prefix(session: Session, digest: str) -> list[Model]:
    """Models whose SHA-256 begins like this."""
    query = select(Model).where(Model.sha256.startswith(digest, autoescape=True)).order_by(Model.sha256)
    return list(session.scalars(query))


def of_engine(session: Session, engine: str | None) -> list[Model]:
    """Models of an engine, or of all."""
    query = select(Model).order_by(Model.engine, Model.scope, Model.sha256)
    return list(session.scalars(query if engine is None else query.where(Model.engine == engine)))


def champion(session: Session, engine: str, scope: str = "") -> Model | None:
    """The model that clinical jobs of an engine use, None = the weights it is shipped with."""
    query = select(Model).where(Model.engine == engine, Model.scope == scope, Model.state == ModelState.CHAMPION)
    return session.scalars(query).one_or_none()


def champion_before(session: Session, model: Model) -> Model | None:
    """The model that stepped down for this one, by the history; None = it took over from the shipped weights."""
    risen = (
        select(Event.id)
        .where(
            Event.subject_type == Model.__tablename__,
            Event.subject_id == model.sha256,
            Event.to_state == ModelState.CHAMPION,
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    replaced = session.scalar(select(Event.data).where(Event.id == risen.scalar_subquery()))
    return session.get(Model, replaced["instead_of"]) if replaced and replaced.get("instead_of") else None
