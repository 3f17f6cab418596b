"""An engine that makes images: every slice of a derived PET reaches the PACS, in one series, beside its exact map."""

from pathlib import Path

import numpy as np
import pydicom

from tests import make
from tests.flow.test_queue import MisbehavingNode, rule
from tests.peers import Sender, StoreScp


def test_a_derived_series_is_one_series_of_many_instances(tmp_path: Path):
    change = {"StationName": "IMAGES"}
    with (
        StoreScp(tmp_path / "pacs") as pacs,
        MisbehavingNode(tmp_path / "node", pacs.port, rules=[rule("images", "make images", "IMAGES")]) as node,
    ):
        study = make.study(tmp_path / "study", seed=31, pet_shape=(12, 20, 20), change=change)
        Sender(node.port).send(study.pet)
        node.wait_delivered(12 + 3)  # SEG, SR and the parametric map
        assert [job["state"] for job in node.jobs()] == ["done"]
        kept = node.rows(
            "select modality, expected, count(*) from series join instance on instance.series_id = series.id "
            "where origin = 'produced' group by series.id order by modality, expected"
        )
    assert kept == [("OT", 1, 1), ("PT", 12, 12), ("SEG", 1, 1), ("SR", 1, 1)]
    received = [pydicom.dcmread(path) for path in pacs.output.iterdir()]
    derived = sorted((one for one in received if one.Modality == "PT"), key=lambda one: one.ImageIndex)
    assert len({one.SeriesInstanceUID for one in derived}) == 1
    assert {one.Units for one in derived} == {"GML"}
    suv = np.stack([one.pixel_array * float(one.RescaleSlope) for one in derived])
    rounded = study.suv.max() / 65534.0  # once by the scanner and once by us, half as much as the values are halved
    assert np.abs(suv - study.suv / 2).max() <= rounded
