"""The world around the node must itself tell the truth: what it calls acknowledged, stored, alive or missing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time from the dictionary
    PositronEmissionTomographyImageStorage,
    SegmentationStorage,
)

from tests import processes
from tests.peers import (
    Orthanc,
    Sender,
    StoreScp,
    echoscu,
    free_port,
    process_tree,
    program,
    real_data,
    rss_bytes,
    sop_instance_uid,
    storescu,
    unpack_sarcoma,
    wait_until,
)


def _object(path: Path, sop_class: str, *, side: int = 64) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "PEERS", "Peers^Test", "PT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = side, side, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.arange(side * side, dtype=np.uint16).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("slices")
    return [_object(folder / f"{number:02}.dcm", PositronEmissionTomographyImageStorage) for number in range(20)]


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _object(tmp_path_factory.mktemp("segmentation") / "seg.dcm", SegmentationStorage)


def _uids(paths: list[Path]) -> set[str]:
    return {sop_instance_uid(path) for path in paths}


def test_storescu_over_parallel_associations_reaches_storescp(tmp_path: Path, slices: list[Path]) -> None:
    with StoreScp(tmp_path, options=["--fork"]) as archive:
        sending = storescu(slices, archive.port, associations=3, files_per_association=4, shuffle_seed=3)
        received = archive.received()
    assert sending.unacknowledged == []
    assert set(received) == _uids(slices)
    assert [result.path for result in sending.results] != slices, "shuffled"
    # 20 files over 3 associations at once: 7 + 7 + 6, in commands of 4: 2 + 2 + 2
    assert sending.log.count("Association Accepted") == 6


def test_same_seed_same_order(slices: list[Path]) -> None:
    orders = [[result.path for result in storescu(slices, free_port(), shuffle_seed=5).results] for _ in range(2)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == slices


def test_nobody_listening_is_nothing_acknowledged(slices: list[Path]) -> None:
    sending = storescu(slices, free_port())
    assert sending.acknowledged == []
    assert sending.unacknowledged == slices
    assert "Association Request Failed" in sending.log


@pytest.fixture
def choosy() -> Iterator[tuple[int, list[int]]]:
    """An archive that answers with the statuses in the list, one after the other, then with success."""
    statuses: list[int] = []
    ae = AE()
    ae.add_supported_context(PositronEmissionTomographyImageStorage)
    answer = (evt.EVT_C_STORE, lambda _: statuses.pop(0) if statuses else 0x0000)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[answer])
    assert server is not None
    yield server.server_address[1], statuses
    server.shutdown()


def test_refused_files_are_named_and_the_rest_goes_on(choosy: tuple[int, list[int]], slices: list[Path]) -> None:
    port, statuses = choosy
    statuses += [0x0000, 0xA700, 0x0000, 0xC000]
    sending = storescu(slices[:6], port)
    assert sending.unacknowledged == [slices[1], slices[3]]
    assert sending.results[1].response is not None
    assert "OutOfResources" in sending.results[1].response


def test_a_file_named_twice_has_two_results(choosy: tuple[int, list[int]], slices: list[Path]) -> None:
    port, statuses = choosy
    statuses += [0xA700, 0x0000]
    sending = storescu([slices[0], slices[0]], port)
    assert [result.acknowledged for result in sending.results] == [False, True]


def test_acknowledged_survives_the_archive_being_killed(tmp_path: Path, slices: list[Path]) -> None:
    archive = StoreScp(tmp_path, options=["--fork"])
    archive.start()
    # An association for each file makes the sending last seconds, so that the kill falls into its midst.
    transmission = Sender(archive.port, files_per_association=1).start(slices * 5)
    wait_until(lambda: len(archive.files()) >= 5, timeout=10)
    archive.kill()
    sending = transmission.wait(timeout=60)
    assert 0 < len(sending.acknowledged) < 100
    assert _uids(sending.acknowledged) <= set(archive.received())
    archive.start()
    again = storescu(sending.unacknowledged, archive.port)
    archive.stop()
    assert again.unacknowledged == []
    assert set(archive.received()) == _uids(slices)


def test_killed_sender_stops_and_tells_what_was_acknowledged(choosy: tuple[int, list[int]], slices: list[Path]) -> None:
    port, _ = choosy
    transmission = Sender(port, files_per_association=1).start(slices * 20)
    time.sleep(0.5)
    transmission.kill()
    sending = transmission.wait(timeout=10)
    assert 0 < len(sending.acknowledged) < 400
    assert len(sending.results) == 400


def test_segmentation_goes_only_when_its_context_is_proposed(tmp_path: Path, segmentation: Path) -> None:
    with StoreScp(tmp_path) as archive:
        assert storescu([segmentation], archive.port).unacknowledged == [segmentation]
        assert storescu([segmentation], archive.port, propose_needed=True).acknowledged == [segmentation]
        assert set(archive.received()) == _uids([segmentation])


def test_orthanc_keeps_and_gives_back(tmp_path: Path, slices: list[Path]) -> None:
    with Orthanc(tmp_path) as archive:
        assert archive.http_port not in {4242, 8042}
        assert archive.dicom_port not in {4242, 8042}
        assert echoscu(archive.dicom_port, called_ae="ORTHANC")
        sending = storescu(slices, archive.dicom_port, associations=2, called_ae="ORTHANC")
        assert sending.unacknowledged == []
        assert set(archive.instances()) == _uids(slices)
        assert archive.count() == 20
        target = tmp_path / "back.dcm"
        target.write_bytes(archive.download(sop_instance_uid(slices[3])))
        assert pydicom.dcmread(target).PixelData == pydicom.dcmread(slices[3]).PixelData
        assert _uids(archive.save_all(tmp_path / "all")) == _uids(slices)
        with pytest.raises(KeyError):
            archive.download("1.2.3")


@pytest.mark.parametrize(("overwrite", "kept"), [(False, "first"), (True, "second")])
def test_orthanc_overwrites_only_when_told(tmp_path: Path, slices: list[Path], overwrite: bool, kept: str) -> None:
    changed = pydicom.dcmread(slices[0])
    for number, description in enumerate(["first", "second"]):
        changed.SeriesDescription = description
        changed.save_as(tmp_path / f"{number}.dcm")
    with Orthanc(tmp_path / "orthanc", overwrite_instances=overwrite) as archive:
        assert len(storescu([tmp_path / "0.dcm"], archive.dicom_port).acknowledged) == 1
        assert len(storescu([tmp_path / "1.dcm"], archive.dicom_port).acknowledged) == 1
        (tmp_path / "kept.dcm").write_bytes(archive.download(sop_instance_uid(slices[0])))
    assert pydicom.dcmread(tmp_path / "kept.dcm").SeriesDescription == kept


def test_orthanc_remembers_over_kill_and_sends_on(tmp_path: Path, slices: list[Path]) -> None:
    with StoreScp(tmp_path / "next", aet="NEXT") as following:
        peers = {"next": ("NEXT", "127.0.0.1", following.port)}
        with Orthanc(tmp_path / "orthanc", modalities=peers) as archive:
            storescu(slices[:3], archive.dicom_port)
            pid = archive.pid
            archive.kill()
            assert process_tree(pid) == []
            archive.start()
            assert archive.pid != pid
            assert set(archive.instances()) == _uids(slices[:3])
            archive.send_to("next", list(archive.instances().values()))
        assert set(following.received()) == _uids(slices[:3])


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with StoreScp(tmp_path / "first") as first:
        second = StoreScp(tmp_path / "second", port=first.port)
        with pytest.raises(RuntimeError, match=r"storescp ended with .*"):
            second.start()


def test_missing_program_skips_aloud_and_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install --no-install-recommends dicom3tools"):
        program("dciodvfy")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install"):
        program("dciodvfy")


def test_missing_data_skips_aloud_also_under_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("TRACERD_REAL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.skip.Exception, match="TRACERD_REAL_DATA"):
        real_data()


def test_real_study_is_unpacked_once() -> None:
    folder = unpack_sarcoma("STS_001")
    first = pydicom.dcmread(next((folder / "PET" / "image").glob("*.dcm")), stop_before_pixels=True)
    assert first.Modality == "PT"
    assert unpack_sarcoma("STS_001") == folder


def test_processes_are_counted_and_weighed() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        wait_until(lambda: len(process_tree(process.pid)) == 2, timeout=10)
        assert rss_bytes(process.pid, tree=True) > rss_bytes(process.pid) > 1 << 20
        process.communicate(b"\n")
    assert process_tree(process.pid) == []


def test_waiting_returns_the_result_or_times_out() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), timeout=1) == 7
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wait_until(lambda: False, timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 1


def test_ports_are_free_and_never_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < ephemeral
