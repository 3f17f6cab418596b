"""Which objects are written for what a site asks, and how a worker leaves them on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from config.destinations import USUAL_OBJECTS
from daemon.worker import Task, write_products
from dicom_io.volume import LoadedSeries, load
from dicom_io.write.kinds import KINDS
from dicom_io.write.objects import objects
from engines.contract import DynamicVolume, Products, Quantity, Volume
from tests import findings, make
from tests.findings import BERLIN, IDENTITY

SHAPE = (6, 12, 10)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> LoadedSeries:
    return findings.series(make.study(tmp_path_factory.mktemp("study"), pet_shape=SHAPE).pet)


def with_map(source: LoadedSeries) -> Products:
    flow = Volume(np.full(SHAPE, 1.5, np.float32), source.volume.affine, Quantity.MBF)
    return findings.products(source, volumes={"MBF/stress": flow})


def names(products: Products, source: LoadedSeries, kinds: Sequence[str] = USUAL_OBJECTS) -> list[str]:
    return [one.name for one in objects(products, source, IDENTITY, kinds)]


def test_the_usual_objects(source: LoadedSeries) -> None:
    slices = [f"pet-1-{index:05d}" for index in range(1, SHAPE[0] + 1)]
    assert names(with_map(source), source) == ["seg", "sr", "parametric_map-1", *slices]
    assert names(findings.products(source), source) == ["seg", "sr"]
    assert names(findings.nothing(), source) == ["sr"]


def test_a_report_has_the_segments_it_refers_to(source: LoadedSeries) -> None:
    found = findings.products(source)
    assert names(found, source, ["sr"]) == ["seg", "sr"]
    assert names(found, source, ["sr_labelmap"]) == ["labelmap", "sr_labelmap"]
    for report, refers_to in (("sr", "seg"), ("sr_labelmap", "labelmap")):
        written = {one.kind: one.dataset for one in objects(found, source, IDENTITY, ["seg", "labelmap", report])}
        referred = {
            str(element.value[0].ReferencedSOPInstanceUID)
            for element in written[report].iterall()
            if element.keyword == "ReferencedSOPSequence" and "ReferencedSegmentNumber" in element.value[0]
        }
        assert referred == {written[refers_to].SOPInstanceUID}


def test_a_kind_there_is_not(source: LoadedSeries) -> None:
    with pytest.raises(ValueError, match="hologram"):
        names(findings.nothing(), source, ["sr", "hologram"])


def task(folder: Path, kinds: Sequence[str]) -> Task:
    identity = asdict(IDENTITY) | {
        "created": IDENTITY.created.isoformat(),
        "timezone": BERLIN.key,
        "supersedes": [],
    }
    return Task(1, str(folder), "threshold_segmentation", {}, {}, identity, BERLIN.key, 60.0, kinds)


def test_a_worker_writes_every_kind_as_its_manifest_says(source: LoadedSeries, tmp_path: Path) -> None:
    rows = write_products(with_map(source), source, task(tmp_path, KINDS), tmp_path)
    assert Counter(row["kind"] for row in rows) == Counter(dict.fromkeys(KINDS, 1) | {"pet": SHAPE[0]})
    for row in rows:
        content = (tmp_path / row["path"]).read_bytes()
        read = pydicom.dcmread(tmp_path / row["path"])
        assert (row["sha256"], row["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert row["transfer_syntax_uid"] == read.file_meta.TransferSyntaxUID
        assert (row["sop_class_uid"], row["sop_uid"]) == (read.SOPClassUID, read.SOPInstanceUID)
        assert (row["series_uid"], row["modality"]) == (read.SeriesInstanceUID, read.Modality)
        assert read.StudyInstanceUID == source.datasets[0].StudyInstanceUID
        assert read.SeriesDescription.endswith("RESEARCH USE ONLY")
        assert read.ContentQualification == "RESEARCH"
    assert len({row["sop_uid"] for row in rows}) == len(rows)
    assert len({row["series_uid"] for row in rows}) == len(KINDS), "one series per kind"


def test_an_image_over_time_becomes_a_series_over_time(tmp_path: Path) -> None:
    paths = findings.dynamic_series(tmp_path / "source", SHAPE, (10.0, 20.0))
    source = load(paths, Quantity.ACTIVITY_BQML, BERLIN)
    assert isinstance(source.volume, DynamicVolume)
    halved = replace(source.volume, array=source.volume.array * np.float32(0.5))
    written = list(objects(findings.nothing(volumes={"Denoised": halved}), source, IDENTITY))
    assert [one.kind for one in written] == ["sr"] + ["pet"] * (2 * SHAPE[0])
    assert {one.dataset.NumberOfTimeSlices for one in written[1:]} == {2}
