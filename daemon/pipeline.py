"""READ THIS FIRST: the way of a study through the node, one function per step, in order.

    listener → spool/inbox → index → assemble → route → execute → deliver → prove

The listener is a process of its own (dicom_io/listener.py): it only makes bytes durable. Everything after that is a
step below. A step reads what is due from the database, does its work and commits the new state last; any step may be
run twice, and after kill -9 the node simply starts again: `recover`, then the same steps.
"""

from __future__ import annotations

from pathlib import Path

from daemon import assemble, associations, deliver, dispatch, execute, index, prove, statements, vouch
from daemon.failures import contain
from daemon.logs import frames
from daemon.node import Node
from db import studies
from db.moves import note
from db.schema import Study


def receive_and_route(node: Node, known: set[str]) -> bool:
    """Inbox → rows → whole series → decisions → jobs; True when anything had arrived.

    What peers say about storage commitment is read when all that was spooled before it is indexed.

    The marks of ended associations are read before the inbox: whatever such an association sent lies in the inbox by
    then, so once this pass has emptied it, the association's end may count.
    """
    ended = associations.marks(node.spool.ended)
    associations.note_opened(node, known)
    said = statements.inbox(node)
    waiting = index.inbox(node)
    touched = index_batch(node, waiting)
    read = statements.read(node, said, after=waiting) if said else 0
    if len(waiting) <= index.BATCH:
        associations.note_ended(node, {name: ended[name] for name in ended if not held(waiting, name)}, known)
    for study_id in sorted(touched):
        look_at(node, study_id)
    return bool(waiting or read)


def index_batch(node: Node, waiting: list[Path]) -> set[int]:
    """Index what waits; an object over which our own code stumbles is set aside, and the others are indexed."""
    touched: set[int] = set()
    batch = waiting[: index.BATCH]
    if not batch or contain(lambda: touched.update(index.index(node, batch))) is None:
        return touched
    for path in batch:
        fault = contain(lambda path=path: touched.update(index.index(node, [path])))  # type: ignore[misc]  # PEP 484 has no words for defaults of lambdas
        if fault is not None:
            node.log.error("set-aside", file=path.name, error=type(fault).__name__, frames=frames(fault))
            index.set_aside(node, path, fault)
    return touched


def held(waiting: list[Path], association_id: str) -> bool:
    """Whether something of an association was left in the inbox for the next pass."""
    return any(path.exists() for path in waiting if index.origin(path)[1] == association_id)


def look_at_due(node: Node) -> None:
    """Look again at every study whose waiting time is over."""
    with node.store.read() as session:
        due = [study.id for study in studies.due(session, node.clock())]
    for study_id in due:
        look_at(node, study_id)


def look_at(node: Node, study_id: int) -> None:
    """Assemble a study, and ask the rules when that made news.

    A study over which our own code stumbles is noted and left alone until something new arrives for it.
    """

    def look() -> None:
        with node.turn() as turn:
            study = turn.session.get_one(Study, study_id)
            if assemble.assemble(turn, study):
                dispatch.dispatch(turn, study)

    fault = contain(look)
    if fault is None:
        return
    node.log.error("study-left-alone", study=study_id, error=type(fault).__name__, frames=frames(fault))
    with node.turn() as turn:
        study = turn.session.get_one(Study, study_id)
        study.due = None
        note(turn.session, study, reason="bug", actor="assemble", at=turn.now, data=type(fault).__name__)


def run_jobs(executor: execute.Executor) -> bool:
    """Collect finished attempts and start due jobs; True when anything happened."""
    return executor.step()


def send_results(node: Node, destination: str) -> bool:
    """Send what is due to one destination; True when anything was tried."""
    return deliver.deliver(node, destination) > 0


def prove_results(node: Node, destination: str) -> bool:
    """Have one destination show that it keeps what it accepted; True when anything was asked or looked for."""
    return prove.prove(node, destination) > 0


def vouch_for_received(node: Node) -> bool:
    """Answer one peer that asks whether we keep what it sent; True when there was one."""
    return vouch.answer(node)


def recover(node: Node) -> None:
    """What a start does before the first step: nothing is lost, nothing is done twice in different bytes."""
    with node.turn() as turn:
        dispatch.activate(turn)
        associations.recover(turn)
        execute.recover(turn)
        deliver.recover(turn)
