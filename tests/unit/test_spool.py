import errno
import json
import os
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from dicom_io.ledger import (
    OpenAssociation,
    Outcome,
    Tally,
    clear_ledger,
    is_of_process,
    record_end,
    record_lost,
    record_open,
)
from dicom_io.spool import Incoming, Origin, Spool, SpoolUnusable, file_header
from tests.processes import program

ORIGIN = Origin(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.128",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    calling_ae="PETCT1",
    called_ae="TRACERD",
    peer="dicom:10.1.2.3:4711",
)
OPENED = OpenAssociation("18ea-77-0", 77, "PETCT1", "TRACERD", "10.1.2.3", 4711, 1_700_000_000_000_000_000)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path)
    made.prepare()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_committed_object_is_in_the_inbox_with_header_and_bytes(spool: Spool) -> None:
    incoming = Incoming(spool, "1-a-0", ORIGIN)
    incoming.write(b"abc")
    incoming.write(memoryview(b"defg")[1:])
    assert names(spool.inbox) == []
    path = incoming.commit()
    assert path == spool.inbox / "1-a-0.dcm"
    assert path.read_bytes() == file_header(ORIGIN) + b"abcefg"
    assert names(spool.tmp) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_discarded_object_leaves_nothing(spool: Spool) -> None:
    incoming = Incoming(spool, "1-a-0", ORIGIN)
    incoming.write(b"abc")
    incoming.discard()
    incoming.discard()
    assert names(spool.tmp) == names(spool.inbox) == []


def test_two_objects_never_share_a_name(spool: Spool) -> None:
    Incoming(spool, "1-a-0", ORIGIN)
    with pytest.raises(FileExistsError):
        Incoming(spool, "1-a-0", ORIGIN)


def test_the_file_meta_information_says_where_the_object_comes_from() -> None:
    file = file_header(ORIGIN)
    assert file[:132] == bytes(128) + b"DICM"
    meta = pydicom.dcmread(BytesIO(file)).file_meta
    assert meta.FileMetaInformationGroupLength == len(file) - 128 - 4 - 12
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.128"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.SourceApplicationEntityTitle == "PETCT1"
    assert meta.SendingApplicationEntityTitle == "PETCT1"
    assert meta.ReceivingApplicationEntityTitle == "TRACERD"
    assert meta.SendingPresentationAddress == "dicom:10.1.2.3:4711"
    assert [element.tag.element for element in meta] == sorted(element.tag.element for element in meta)
    # Explicit VR Little Endian: every value has even length (PS3.5 7.1.1).
    assert len(file) % 2 == 0


def test_dcmtk_reads_the_file(spool: Spool) -> None:
    incoming = Incoming(spool, "1-a-0", ORIGIN)
    incoming.write(bytes.fromhex("0800 1600 5549 0400") + b"1.2\0")  # (0008,0016) UI
    shown = subprocess.run([program("dcmdump"), incoming.commit()], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert "(0002,0027) UR dicom:10.1.2.3:4711" in shown.stdout.replace("[", "").replace("]", "")


@pytest.mark.parametrize("broken", ["fdatasync", "rename", "fsync"])
def test_what_cannot_be_made_durable_is_not_there(spool: Spool, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    incoming = Incoming(spool, "1-a-0", ORIGIN)
    incoming.write(b"abcd")
    monkeypatch.setattr(os, broken, fails)
    with pytest.raises(OSError, match="Input/output"):
        incoming.commit()
    incoming.discard()
    assert names(spool.tmp) == names(spool.inbox) == []


def test_tmp_and_inbox_on_different_file_systems_are_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    other = elsewhere / f"tracerd-test-{os.getpid()}"
    other.mkdir()
    try:
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool" / "tmp").symlink_to(other)
        with pytest.raises(SpoolUnusable, match="atomic rename"):
            Spool(tmp_path).prepare()
    finally:
        for leftover in other.iterdir():
            leftover.unlink()
        other.rmdir()


def test_the_janitor_deletes_parts_and_nothing_else(spool: Spool) -> None:
    for name in ("1-aa-7-0-0.part", "1-aa-77-7-7.part", "note.txt"):
        (spool.tmp / name).write_bytes(b"x")
    (spool.inbox / "1-aa-77-0-0.dcm").write_bytes(b"x")
    assert spool.clear_tmp(lambda name: is_of_process(name, 7)) == 1
    assert names(spool.tmp) == ["1-aa-77-7-7.part", "note.txt"]
    assert spool.clear_tmp() == 1
    assert names(spool.tmp) == ["note.txt"]
    assert names(spool.inbox) == ["1-aa-77-0-0.dcm"]


def test_free_bytes_and_closed(spool: Spool) -> None:
    status = os.statvfs(spool.inbox)
    assert abs(spool.free_bytes - status.f_bavail * status.f_frsize) < 1e9
    assert not spool.is_closed
    spool.closed.write_text("cleaning")
    assert spool.is_closed


def test_the_ledger_tells_how_an_association_ended(spool: Spool) -> None:
    record_open(spool, OPENED)
    assert names(spool.associations) == ["18ea-77-0.json"]
    record_end(spool, OPENED, Tally(stored=3, refused=1), Outcome.RELEASED, 1_700_000_001_000_000_000)
    assert names(spool.associations) == []
    document = json.loads((spool.ended / "18ea-77-0.json").read_text())
    assert document == {
        "id": "18ea-77-0",
        "pid": 77,
        "calling_ae": "PETCT1",
        "called_ae": "TRACERD",
        "peer": "10.1.2.3",
        "port": 4711,
        "opened_ns": 1_700_000_000_000_000_000,
        "closed_ns": 1_700_000_001_000_000_000,
        "stored": 3,
        "refused": 1,
        "outcome": "released",
    }


def test_what_a_dead_process_left_open_is_lost(spool: Spool) -> None:
    record_open(spool, OPENED)
    record_open(spool, OpenAssociation("18ea-7-0", 7, "PETCT2", "TRACERD", "10.1.2.4", 4712, OPENED.opened_ns))
    assert record_lost(spool, 77) == 1
    assert names(spool.associations) == ["18ea-7-0.json"]
    assert json.loads((spool.ended / "18ea-77-0.json").read_text())["outcome"] == "lost"
    (spool.associations / "18ea-8-0.tmp").write_bytes(b"{}")
    (spool.associations / "18ea-8-1.json").write_bytes(b"")  # power was cut before these bytes reached the disk
    (spool.ended / "18ea-8-2.json").write_bytes(bytes(100))
    assert clear_ledger(spool) == 1
    assert names(spool.associations) == []
    assert names(spool.ended) == ["18ea-7-0.json", "18ea-77-0.json"]
