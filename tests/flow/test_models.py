"""Models on a node: which weights a job uses, and that nothing else can become of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
import torch

from daemon import commands, control, dispatch, execute, models, pipeline, promotion, worker
from daemon.ask import call
from daemon.commands import CannotDo
from daemon.node import Node, utc_now
from db import schema
from db.states import JobState, ModelState
from engines import models as weights_files
from engines.errors import UnknownEngine, WeightsRefused
from engines.fdg_segmentation import infer, model
from engines.models import RESEARCH_ONLY, Architecture, Card
from tests import make
from tests.flow.test_steps import drain, drop, opened, rows, run_job

RULE: dict[str, Any] = {
    "name": "fdg",
    "engine": "fdg_segmentation",
    "inputs": {"pet": {"modality": "PT", "kind": "static"}, "ct": {"modality": "CT", "pairs_with": "pet"}},
    "parameters": {"max_lesions": 3},
    "send_to": ["pacs"],
}
ARGUMENTS = {"widths": [4, 8], "encoder_convolutions": 1, "decoder_convolutions": 1}
ABOUT_IMAGES = {"spacing_mm": [40.0, 40.0, 40.0], "patch": [16, 16, 16]}


def weights(folder: Path, seed: int, **changes: Any) -> Path:
    """A network of its own, with its card."""
    torch.manual_seed(seed)
    network = model.build("plain_conv_unet", ARGUMENTS)
    card = Card(
        engine="fdg_segmentation",
        architecture=Architecture("plain_conv_unet", {**ARGUMENTS, **ABOUT_IMAGES}),
        data=f"Nothing: drawn with seed {seed}",
        commit="0",
        seed=seed,
        metrics={},
        intended_use=RESEARCH_ONLY,
        created=datetime(2026, 12, 1, tzinfo=UTC),
    )
    for name, value in changes.items():
        object.__setattr__(card, name, value)
    path = folder / f"weights-{seed}.safetensors"
    weights_files.save(path, network.state_dict(), card)
    return path


def digest(path: Path) -> str:
    found = weights_files.card_of(path).sha256
    assert found is not None
    return found


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose engine is shipped with weights 0."""
    monkeypatch.setattr(infer, "SHIPPED", weights(tmp_path, 0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with opened(tmp_path, rules=[RULE]) as opened_node:
        yield opened_node
    torch.set_num_threads(threads)


def imported(node: Node, path: Path) -> str:
    found = models.keep(node.folders, path)
    with node.turn() as turn:
        promotion.register(turn, found, actor="anna")
    return found


def promoted(node: Node, found: str) -> None:
    """Candidate → shadow → champion."""
    for _ in range(2):
        with node.turn() as turn:
            promotion.promote(turn, found, because="better on 40 cases", actor="anna")


def state(node: Node, found: str) -> ModelState:
    with node.glance() as turn:
        return ModelState(turn.session.get_one(schema.Model, found).state)


def rerun(node: Node, job_id: int) -> schema.Job:
    with node.turn() as turn:
        new = commands.rerun(turn, job_id, actor="anna")["id"]
    run_job(node, new)
    return rows(node, schema.Job)[-1]


def said_weights(node: Node, job_id: int) -> set[str]:
    """Digests that the DICOM results of a job name as their algorithm's."""
    found = set()
    for row in rows(node, schema.Instance):
        if row.job_id == job_id:
            text = str(pydicom.dcmread(node.folders.data / row.path))
            found |= {word for word in known_digests(node) if word in text}
    return found


def known_digests(node: Node) -> set[str]:
    with node.glance() as turn:
        return {row["sha256"] for row in promotion.list_models(turn)} | {digest(infer.SHIPPED)}


def received(node: Node, folder: Path) -> None:
    study = make.study(folder, seed=41, pet_shape=(16, 16, 16), ct_shape=(16, 32, 32))
    drop(node, study.files)
    drain(node)
    pipeline.look_at_due(replace(node, clock=lambda: utc_now() + timedelta(hours=1)))  # the CT's quiet time is over


def test_jobs_use_the_champion_and_say_so(node: Node, tmp_path: Path) -> None:
    received(node, tmp_path / "study")
    shipped, better = digest(infer.SHIPPED), imported(node, weights(tmp_path, 1))
    run_job(node, 1)
    (first,) = rows(node, schema.Job)
    assert (first.state, first.model_sha256) == (JobState.DONE, shipped)
    assert said_weights(node, 1) == {shipped}
    assert state(node, better) is ModelState.CANDIDATE
    assert rerun(node, 1).model_sha256 == shipped

    promoted(node, better)
    second = rerun(node, 2)
    assert (second.state, second.model_sha256) == (JobState.DONE, better)
    assert said_weights(node, second.id) == {better}
    assert len({job.key for job in rows(node, schema.Job)}) == 3

    with node.turn() as turn:
        done = promotion.rollback(turn, "fdg_segmentation", because="misses small nodes", actor="anna")
    assert done == {"engine": "fdg_segmentation", "weights_sha256": shipped}
    assert rerun(node, second.id).model_sha256 == shipped


def test_a_job_keeps_the_weights_it_was_made_for(node: Node, tmp_path: Path) -> None:
    one, other = (imported(node, weights(tmp_path, seed)) for seed in (1, 2))
    promoted(node, one)
    received(node, tmp_path / "study")
    promoted(node, other)
    assert (state(node, one), state(node, other)) == (ModelState.RETIRED, ModelState.CHAMPION)
    run_job(node, 1)
    (job,) = rows(node, schema.Job)
    assert (job.state, job.model_sha256) == (JobState.DONE, one)
    assert said_weights(node, 1) == {one}


def test_the_answer_is_that_of_the_champions_network(node: Node, tmp_path: Path) -> None:
    """The worker's engine is built from the file of the champion, not from the one it is shipped with."""
    better = imported(node, weights(tmp_path, 1))
    promoted(node, better)
    received(node, tmp_path / "study")
    with node.turn() as turn:
        task = execute.task_of(turn, turn.session.get_one(schema.Job, 1), 1)
    assert task.weights == str((node.folders.models / f"{better}.safetensors").resolve())
    assert task.identity["weights_sha256"] == better


def test_the_digest_is_part_of_the_jobs_key(node: Node, tmp_path: Path) -> None:
    """The same study under the same rule is another job under another champion, and the same one again after it."""
    received(node, tmp_path / "study")
    with node.turn() as turn:
        job = turn.session.get_one(schema.Job, 1)
        inputs = {slot: wanted["series"] for slot, wanted in job.inputs.items()}
        order = dispatch.Order(job.study_id, node.settings.rules[0], job.decision_id, inputs)
        before = dispatch.build(turn, order).key
    assert before == job.key
    promoted(node, imported(node, weights(tmp_path, 1)))
    with node.turn() as turn:
        assert dispatch.build(turn, order).key != before
    with node.turn() as turn:
        promotion.rollback(turn, "fdg_segmentation", because="x", actor="anna")
        assert dispatch.build(turn, order).key == before


def test_a_worker_compares_its_weights_with_the_jobs(node: Node, tmp_path: Path) -> None:
    received(node, tmp_path / "study")
    with node.turn() as turn:
        task = execute.task_of(turn, turn.session.get_one(schema.Job, 1), 1)
    other = replace(task, identity={**task.identity, "weights_sha256": "0" * 64})
    with pytest.raises(WeightsRefused) as refused:
        worker.perform(other, tmp_path, lambda: False)
    assert refused.value.code == "other-weights"


def test_weights_that_are_not_those_of_the_job_make_no_result(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade ships other weights while a job waits: it is held, not done under the wrong name."""
    received(node, tmp_path / "study")
    monkeypatch.setattr(infer, "SHIPPED", weights(tmp_path, 9))
    with pytest.raises(WeightsRefused):
        run_job(node, 1)


def test_an_altered_file_is_no_champion_and_makes_no_result(node: Node, tmp_path: Path) -> None:
    better = imported(node, weights(tmp_path, 1))
    path = models.weights_path(node.folders, better)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with node.turn() as turn:
        promotion.promote(turn, better, because="x", actor="anna")
    with pytest.raises(WeightsRefused), node.turn() as turn:
        promotion.promote(turn, better, because="x", actor="anna")
    assert state(node, better) is ModelState.SHADOW
    path.write_bytes(whole)
    with node.turn() as turn:
        promotion.promote(turn, better, because="x", actor="anna")
    received(node, tmp_path / "study")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(WeightsRefused):
        run_job(node, 1)


def test_rolling_back_goes_to_the_champion_before(node: Node, tmp_path: Path) -> None:
    first, second, third = (imported(node, weights(tmp_path, seed)) for seed in (1, 2, 3))
    for each in (first, second, third):
        promoted(node, each)
    for expected in (second, first):
        with node.turn() as turn:
            assert promotion.rollback(turn, "fdg_segmentation", because="x", actor="a")["weights_sha256"] == expected
            break
    assert [state(node, each) for each in (first, second, third)] == [
        ModelState.RETIRED,
        ModelState.CHAMPION,
        ModelState.RETIRED,
    ]
    with node.turn() as turn:  # a retired champion may come back
        promotion.promote(turn, third, because="the data was wrong", actor="anna")
    assert state(node, third) is ModelState.CHAMPION
    with node.glance() as turn:
        history = promotion.describe(turn, third)["history"]
    assert [event["to"] for event in history] == [None, "shadow", "champion", "retired", "champion"]
    assert "the data was wrong" in history[-1]["reason"]


def test_what_cannot_be_promoted(node: Node, tmp_path: Path) -> None:
    start = imported(node, weights(tmp_path, 1, start_only=True))
    better = imported(node, weights(tmp_path, 2))
    with node.turn() as turn:
        for wanted in (start, "abcdef", better[:5], ""):
            with pytest.raises(CannotDo):
                promotion.promote(turn, wanted, because="x", actor="anna")
        with pytest.raises(CannotDo):
            promotion.promote(turn, better, because=" ", actor="anna")
        with pytest.raises(CannotDo):
            promotion.rollback(turn, "fdg_segmentation", because="x", actor="anna")
        promotion.promote(turn, better[:6], because="x", actor="anna")
        promotion.promote(turn, better, because="x", actor="anna")
        with pytest.raises(CannotDo, match="already"):
            promotion.promote(turn, better, because="x", actor="anna")


def test_importing_twice_changes_nothing(node: Node, tmp_path: Path) -> None:
    path = weights(tmp_path, 1)
    found = imported(node, path)
    promoted(node, found)
    assert imported(node, path) == found
    assert state(node, found) is ModelState.CHAMPION
    assert sorted(each.name for each in node.folders.models.iterdir()) == [f"{found}.safetensors", f"{found}.yaml"]
    foreign = weights(tmp_path, 2, engine="no_such_engine")
    with pytest.raises(UnknownEngine):
        imported(node, foreign)


def test_the_socket_answers_the_same(node: Node, tmp_path: Path) -> None:
    found = models.keep(node.folders, weights(tmp_path, 1))
    server, socket = control.Control(node), node.folders.control_socket

    def post(route: str, **body: str) -> Any:
        return call(socket, "POST", route, {"actor": "anna", **body})

    try:
        assert call(socket, "GET", "/models") == []
        assert post("/models", sha256=found)["state"] == "candidate"
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            post("/models", sha256="../x")
        with pytest.raises(CannotDo, match="card"):
            post("/models", sha256="0" * 64)
        assert post(f"/models/{found[:8]}/promote", because="better")["state"] == "shadow"
        assert post(f"/models/{found}/promote", because="better")["state"] == "champion"
        assert call(socket, "GET", f"/models/{found}")["history"][-1]["reason"] == "promoted: better"
        assert len(call(socket, "GET", "/models?engine=fdg_segmentation")) == 1
        assert call(socket, "GET", "/models?engine=other") == []
        for refused in (f"/models/{found}/promote", "/models/fdg_segmentation/retire", "/models/ffffff/promote"):
            with pytest.raises(CannotDo):
                post(refused, because="x")
        done = post("/models/fdg_segmentation/rollback", because="worse")
        assert done["weights_sha256"] == digest(infer.SHIPPED)
    finally:
        server.close()
