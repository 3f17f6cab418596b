"""The data set of one request: written into the spool, or refused and merely read to its end."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dicom_io.dimse import (
    CLOSED,
    DISK_FULL,
    EMPTY_DATA_SET,
    ILLEGAL_UID,
    INTERNAL_ERROR,
    NOT_WRITTEN,
    SUCCESS,
    Status,
)
from dicom_io.offer import is_uid
from dicom_io.spool import OBJECT, Incoming, Origin, Spool

CHECK_DISK_EVERY_BYTES = 16 * 1024 * 1024


class Reception:
    """Takes the bytes of one object and says in the end which status they earned.

    A reason to refuse never stops the reading: the peer is mid-sentence and hears the status when it has finished.

    fault : class and place of an unexpected exception, for the log; never its text
    """

    def __init__(self, spool: Spool, name: str, origin: Origin, free_bytes_min: int, *, suffix: str = OBJECT) -> None:
        self.fault: str | None = None
        self._spool = spool
        self._free_bytes_min = free_bytes_min
        self._received = 0
        self._checked = 0
        self._incoming: Incoming | None = None
        self._refusal = self._reason_to_refuse(origin)
        if self._refusal is None:
            with self._refusing():
                self._incoming = Incoming(spool, name, origin, suffix)

    def write(self, fragment: memoryview) -> None:
        """Append encoded bytes of the data set."""
        self._received += len(fragment)
        if self._incoming is None:
            return
        with self._refusing():
            if self._received - self._checked > CHECK_DISK_EVERY_BYTES:
                self._checked = self._received
                self._refusal = self._lacks_space()
            self._incoming.write(fragment)

    def finish(self) -> Status:
        """Everything has been read: make it durable, or remove what there is of it."""
        if self._refusal is None and self._received == 0:
            self._refusal = EMPTY_DATA_SET
        if self._refusal is None and self._incoming is not None:
            with self._refusing():
                self._incoming.commit()
                self._incoming = None
        self.abandon()
        return self._refusal or SUCCESS

    def abandon(self) -> None:
        """Leave nothing behind of an object that was not stored."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _reason_to_refuse(self, origin: Origin) -> Status | None:
        if not (is_uid(origin.sop_class_uid) and is_uid(origin.sop_instance_uid)):
            return ILLEGAL_UID
        return CLOSED if self._spool.is_closed else self._lacks_space()

    def _lacks_space(self) -> Status | None:
        return DISK_FULL if self._spool.free_bytes < self._free_bytes_min else None

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """The edge of the handler: what fails here fails this object only."""
        try:
            yield
        except OSError as error:
            self._refusal = DISK_FULL if error.errno in {errno.ENOSPC, errno.EDQUOT} else NOT_WRITTEN
            self.fault = f"{errno.errorcode.get(error.errno or 0, 'OSError')} {place(error)}"
        except Exception as error:  # noqa: BLE001 - outer edge: a defect of ours must cost one object, not the node
            self._refusal = INTERNAL_ERROR
            self.fault = f"{type(error).__name__} {place(error)}"
        if self._refusal is not None:
            self.abandon()


def place(error: BaseException) -> str:
    """File and line where an exception was raised; its text may quote what a peer sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
