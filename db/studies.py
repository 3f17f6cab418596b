"""What arrived: studies, series and instances, looked up and filed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.moves import move, note
from db.schema import Association, Event, Instance, Origin, Quarantine, Series, Study
from db.states import AssociationState, InstanceState, SeriesState, StudyState


def filed_paths(session: Session, paths: Iterable[str]) -> set[str]:
    """Which of the store paths already have a row (a crash came between commit and unlink)."""
    return set(session.scalars(select(Instance.path).where(Instance.path.in_(list(paths)))))


def copies(session: Session, sop_uid: str) -> list[Instance]:
    """Every copy we hold of one SOP instance that still has bytes, the current one first."""
    rows = session.scalars(
        select(Instance).where(
            Instance.sop_uid == sop_uid,
            Instance.state.in_([InstanceState.CURRENT, InstanceState.CONFLICTING, InstanceState.SUPERSEDED]),
        )
    )
    return sorted(rows, key=lambda row: row.state != InstanceState.CURRENT)


def first_copy(session: Session, sop_uid: str) -> Instance:
    """The oldest row of a SOP instance, whether it still has bytes or not."""
    return session.scalars(select(Instance).where(Instance.sop_uid == sop_uid).order_by(Instance.id).limit(1)).one()


def is_produced(session: Session, sop_uid: str) -> bool:
    """Whether a job of ours made that SOP instance, also when its bytes were removed since."""
    query = select(Instance.id).where(Instance.sop_uid == sop_uid, Instance.job_id.is_not(None)).limit(1)
    return session.scalar(query) is not None


def known_uids(session: Session, sop_uids: Sequence[str]) -> set[str]:
    """Which SOP Instance UIDs of a batch we hold already."""
    return set(session.scalars(select(Instance.sop_uid).where(Instance.sop_uid.in_(list(sop_uids)))))


def study_for(session: Session, study_uid: str, *, patient_id: str, issuer: str, at: datetime) -> tuple[Study, bool]:
    """The study's row, made when new; the flag says that another Patient ID than before came under this study UID."""
    study = session.scalar(select(Study).where(Study.study_uid == study_uid))
    if study is None:
        study = Study(
            study_uid=study_uid,
            patient_id=patient_id,
            issuer=issuer,
            generation=1,
            first_arrival=at,
            last_arrival=at,
            state=StudyState.COLLECTING,
        )
        session.add(study)
        session.flush()
        return study, False
    return study, (study.patient_id, study.issuer) != (patient_id, issuer)


def series_for(session: Session, study: Study, series_uid: str, *, modality: str, at: datetime) -> Series:
    """The series' row, made when new."""
    series = session.scalar(select(Series).where(Series.study_id == study.id, Series.series_uid == series_uid))
    if series is None:
        series = Series(
            study_id=study.id,
            series_uid=series_uid,
            modality=modality,
            origin=Origin.RECEIVED,
            last_arrival=at,
            state=SeriesState.ARRIVING,
        )
        session.add(series)
        session.flush()
    return series


def arrived(session: Session, study: Study, series: Series, *, at: datetime, actor: str) -> None:
    """Note an arrival: settled studies and whole series are opened again, as a new generation."""
    if study.state != StudyState.COLLECTING:
        study.generation += 1
        move(session, study, StudyState.COLLECTING, reason="late arrival", actor=actor, at=at)
    if series.state != SeriesState.ARRIVING:
        move(session, series, SeriesState.ARRIVING, reason="late arrival", actor=actor, at=at)
    study.last_arrival = max(study.last_arrival, at)
    series.last_arrival = max(series.last_arrival, at)


def current_instances(session: Session, series_id: int) -> list[Instance]:
    """Current instances of a series in the order of arrival."""
    return list(
        session.scalars(
            select(Instance)
            .where(Instance.series_id == series_id, Instance.state == InstanceState.CURRENT)
            .order_by(Instance.id)
        )
    )


def count_current(session: Session, series_id: int) -> int:
    """How many instances of the series are current."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Instance)
            .where(Instance.series_id == series_id, Instance.state == InstanceState.CURRENT)
        )
        or 0
    )


def series_of(session: Session, study_id: int) -> list[Series]:
    """All series of a study, oldest first."""
    return list(session.scalars(select(Series).where(Series.study_id == study_id).order_by(Series.id)))


def open_associations(session: Session, study_id: int) -> int:
    """How many associations that delivered to the study are still open."""
    delivered = (
        select(Instance.association_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Instance.association_id.is_not(None))
    )
    return (
        session.scalar(
            select(func.count())
            .select_from(Association)
            .where(Association.id.in_(delivered), Association.state == AssociationState.OPEN)
        )
        or 0
    )


def association_of(session: Session, series_id: int) -> Association | None:
    """The association that brought the first instance of a series."""
    return session.scalar(
        select(Association)
        .join(Instance, Instance.association_id == Association.id)
        .where(Instance.series_id == series_id)
        .order_by(Instance.id)
        .limit(1)
    )


def due(session: Session, now: datetime) -> list[Study]:
    """Studies whose waiting is over."""
    return list(
        session.scalars(
            select(Study).where(Study.state == StudyState.COLLECTING, Study.due.is_not(None), Study.due <= now)
        )
    )


def conflicts(session: Session, study_id: int | None = None) -> list[tuple[Series, int]]:
    """Series that hold conflicting copies, with how many."""
    query = (
        select(Series, func.count())
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.state == InstanceState.CONFLICTING)
        .group_by(Series.id)
        .order_by(Series.id)
    )
    if study_id is not None:
        query = query.where(Series.study_id == study_id)
    return [(row[0], row[1]) for row in session.execute(query)]


def conflicting_instances(session: Session, series_id: int) -> list[Instance]:
    """The conflicting copies of a series, the newest last."""
    return list(
        session.scalars(
            select(Instance)
            .where(Instance.series_id == series_id, Instance.state == InstanceState.CONFLICTING)
            .order_by(Instance.id)
        )
    )


def removed_copy(session: Session, sop_uid: str, content_sha256: str) -> Instance | None:
    """The row of an instance whose bytes the sweep has removed."""
    return session.scalar(
        select(Instance).where(
            Instance.sop_uid == sop_uid,
            Instance.content_sha256 == content_sha256,
            Instance.state == InstanceState.REMOVED,
        )
    )


def has_note(session: Session, study: Study, reason: str) -> bool:
    """Whether something is noted about a study and was not answered by a release since."""
    last = session.scalar(
        select(Event)
        .where(
            Event.subject_type == Study.__tablename__,
            Event.subject_id == str(study.id),
            Event.reason.in_([reason, f"released {reason}"]),
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    return last is not None and last.reason == reason


def sender(session: Session, association_id: str | None) -> dict[str, str]:
    """Who opened an association."""
    row = session.get(Association, association_id) if association_id else None
    return {"calling_ae": row.calling_ae, "peer": row.peer} if row else {"calling_ae": "", "peer": ""}


def quarantine(session: Session, *, path: str, code: str, detail: str, sender: Mapping[str, str], at: datetime) -> None:
    """Record an object that could not be read, once; its bytes are kept under `path`."""
    if session.scalar(select(Quarantine).where(Quarantine.path == path)) is not None:
        return
    row = Quarantine(
        path=path,
        code=code,
        detail=detail,
        calling_ae=sender["calling_ae"],
        peer=sender["peer"],
        received=at,
    )
    session.add(row)
    session.flush()
    note(session, row, reason=code, actor="index", at=at)
