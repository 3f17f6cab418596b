"""Cases out of a node's own store: what it received, with what somebody drew and sent there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.node import Node
from daemon.sources import Reading, cases
from db.errors import DatabaseError
from engines.errors import EngineError
from tests import drawn, make
from tests.flow.test_steps import drain, drop, opened, run_job
from tests.unit.test_cli import write


def received(node: Node, folder: Path, seed: int) -> make.Study:
    study = make.study(folder, seed=seed, pet_shape=(12, 16, 16), ct_shape=(12, 32, 32))
    drop(node, study.files)
    drain(node)
    return study


def test_studies_that_somebody_drew_on_are_cases(tmp_path: Path) -> None:
    """The second study has no drawing but our own result, which is none."""
    config = write(tmp_path / "node.yaml", tmp_path)
    with opened(tmp_path) as node:
        study = received(node, tmp_path / "one", 1)
        received(node, tmp_path / "two", 2)
        run_job(node, 2)
        drop(node, [drawn.segmentation(study.pet, study.truth > 0, tmp_path / "seg.dcm")])
        drain(node)
        (case,) = cases(f"store:{config}", Reading())
    assert case.truth is not None
    assert np.array_equal(case.truth.array > 0, study.truth > 0)
    assert np.allclose(case.volumes["pet"].array, study.suv, atol=0.01)
    assert case.volumes["ct"].array.shape == (12, 32, 32)
    assert case.group == "patient 1"


def test_a_store_without_drawings_or_without_a_database(tmp_path: Path) -> None:
    config = write(tmp_path / "node.yaml", tmp_path)
    with pytest.raises(DatabaseError) as refused:
        cases(f"store:{config}", Reading())
    assert refused.value.code == "no-database"
    with opened(tmp_path) as node:
        received(node, tmp_path / "one", 1)
        with pytest.raises(EngineError) as empty:
            cases(f"store:{config}", Reading())
    assert empty.value.code == "no-cases"
