"""The spool: a durable, atomic file drop. Whoever hears "stored" can lose power at once and still finds the bytes.

An object is written to ``spool/tmp``, its bytes are flushed (``fdatasync``), it is renamed into ``spool/inbox`` and
the folder is flushed (``fsync``): in this order, or it was not stored. Nothing in the inbox is ever half an object.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dicom_io.errors import DicomError

IMPLEMENTATION_CLASS_UID = "2.25.244306465376787698518058016872727420730"
IMPLEMENTATION_VERSION_NAME = "TRACERD"

OBJECT, ACTION, EVENT = ".dcm", ".action", ".event"
"""Suffixes in the inbox: an object that was sent to us, a storage commitment request, a report on one of ours."""


class SpoolUnusable(DicomError):
    """The spool's folders cannot keep the promise of durable, atomic storage."""

    code = "spool-unusable"
    hint = "Put spool/tmp and spool/inbox on one local file system that this user may write to."


@dataclass(frozen=True)
class Spool:
    """The folders of a node through which objects come in; their paths are asked for with every object.

    data : the node's data folder
    """

    data: Path

    @cached_property
    def tmp(self) -> Path:
        """Objects being received; nothing here was ever promised to anybody."""
        return self.data / "spool" / "tmp"

    @cached_property
    def inbox(self) -> Path:
        """Objects received whole and durable, not yet indexed."""
        return self.data / "spool" / "inbox"

    @property
    def associations(self) -> Path:
        """One file per open association."""
        return self.data / "run" / "associations"

    @property
    def ended(self) -> Path:
        """One file per association that ended and was not yet recorded."""
        return self.data / "run" / "ended"

    @cached_property
    def closed(self) -> Path:
        """While this file exists nothing is stored (0xA700); its text is the reason."""
        return self.data / "run" / "closed"

    def prepare(self) -> None:
        """Make the folders and try whether a rename from tmp to inbox is possible, hence atomic.

        Raises
        ------
        SpoolUnusable
            A folder cannot be made or written to, or tmp and inbox are on different file systems.
        """
        probe, target = (folder / f"probe-{os.getpid()}" for folder in (self.tmp, self.inbox))
        try:
            for folder in (self.tmp, self.inbox, self.associations, self.ended):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.inbox.parent, self.data):
                fsync_directory(folder)  # the first object must not be lost with the folder it is in
            with contextlib.suppress(PermissionError):  # whose owner has made and kept it
                fsync_directory(self.data.absolute().parent)
            probe.write_bytes(b"")
            probe.rename(target)
            target.unlink()
        except OSError as error:
            raise SpoolUnusable(f"spool/tmp → spool/inbox: expected an atomic rename, got {error.strerror}") from error

    def clear_tmp(self, is_leftover: Callable[[str], bool] = lambda _: True) -> int:
        """Delete what was left half received, of all names or of those that `is_leftover`; returns how many."""
        leftovers = [path for path in self.tmp.glob("*.part") if is_leftover(path.name)]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    @property
    def is_closed(self) -> bool:
        """Whether somebody closed the node for storage."""
        return self.closed.exists()

    @property
    def free_bytes(self) -> int:
        """Bytes this process may still write to the spool's file system; 0 when it has no inodes left."""
        status = os.statvfs(self.inbox)
        has_inodes = status.f_favail > 0 or status.f_files == 0  # btrfs counts no inodes
        return status.f_bavail * status.f_frsize if has_inodes else 0


def fsync_directory(folder: Path) -> None:
    """Make the names in a folder survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known about an object from its transfer alone; becomes its File Meta Information (PS3.10 7.1).

    peer : ``dicom:<address>:<port>`` of the sender, for (0002,0027)
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    peer: str


def file_header(origin: Origin) -> bytes:
    """The bytes before the data set of a DICOM file: a preamble of zeros, ``DICM``, File Meta Information."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", origin.sop_class_uid.encode("ascii")),
            _element(0x0003, b"UI", origin.sop_instance_uid.encode("ascii")),
            _element(0x0010, b"UI", origin.transfer_syntax_uid.encode("ascii")),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _element(0x0016, b"AE", origin.calling_ae.encode("ascii")),
            _element(0x0017, b"AE", origin.calling_ae.encode("ascii")),
            _element(0x0018, b"AE", origin.called_ae.encode("ascii")),
            _element(0x0027, b"UR", origin.peer.encode("ascii")),
        )
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """One element of group 0002 in Explicit VR Little Endian (PS3.5 7.1.2), padded to even length."""
    padding = b"\x00" if vr in {b"UI", b"OB"} else b" "
    value += padding * (len(value) % 2)
    length = struct.pack("<2xL" if vr in {b"OB", b"UR"} else "<H", len(value))
    return struct.pack("<HH", 0x0002, number) + vr + length + value


class Incoming:
    """One object on its way into the inbox: written piece by piece, then committed or discarded.

    Every `OSError` that `write` or `commit` raises is final for this object: it was not stored, and `discard` removes
    what there is of it. A failed flush in particular is never tried again, because the kernel may have dropped the
    dirty pages and would report success the second time.
    """

    def __init__(self, spool: Spool, name: str, origin: Origin, suffix: str = OBJECT) -> None:
        self._part = f"{spool.tmp}/{name}.part"
        self._final = f"{spool.inbox}/{name}{suffix}"
        self._folder = spool.inbox
        self._file = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.write(file_header(origin))
        except OSError:
            self.discard()
            raise

    def write(self, fragment: bytes | memoryview) -> None:
        """Append encoded bytes of the data set."""
        rest = memoryview(fragment)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def commit(self) -> Path:
        """Make the object durable under its final name and return it; only now it may be called stored."""
        os.fdatasync(self._file)
        os.rename(self._part, self._final)  # noqa: PTH104 - a tenth of the time of pathlib's, for every object
        fsync_directory(self._folder)
        self._close()
        return Path(self._final)

    def discard(self) -> None:
        """Remove every trace of the object. May be called at any time before `commit` has returned."""
        # On a disk that went bad this fails too. What stays was never called stored: the janitor deletes the part, and
        # a final name is one more copy of an object that its sender, who was refused, sends again.
        with contextlib.suppress(OSError):
            self._close()
        for path in (self._part, self._final):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - these are no objects of pathlib

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
