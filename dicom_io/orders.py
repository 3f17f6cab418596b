"""What a listener process is told by its parent, and what both need to open a door."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import DoorTls, Settings
from dicom_io.errors import DicomError


class DoorUnusable(DicomError):
    """A door cannot be opened: its address is taken or not ours, or its certificate cannot be used."""

    code = "door-unusable"
    hint = "Check host, port and the TLS files under `listener.doors`; is another listener running?"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child is told: the settings, its parent, and the descriptors it inherits (one socket per door)."""

    settings: Settings
    data: Path
    parent: int
    sockets: tuple[int, ...]
    seats: int

    def to_json(self) -> str:
        """For the child's stdin; only the settings that concern it."""
        settings = self.settings.model_dump_json(include={"timezone", "listener", "peers", "allow_unknown_peers"})
        return json.dumps(
            {
                "settings": json.loads(settings),
                "data": str(self.data),
                "parent": self.parent,
                "sockets": self.sockets,
                "seats": self.seats,
            }
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Orders:
        """What `to_json` wrote."""
        return cls(
            settings=Settings.model_validate_json(json.dumps(document["settings"])),
            data=Path(document["data"]),
            parent=int(document["parent"]),
            sockets=tuple(document["sockets"]),
            seats=int(document["seats"]),
        )


def tls_context(tls: DoorTls) -> ssl.SSLContext:
    """TLS 1.2 or newer (PS3.15 B.12); peers need a certificate where `client_ca` is given.

    Raises
    ------
    DoorUnusable
        A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
        if tls.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(tls.client_ca)
    except OSError as error:  # ssl.SSLError is one
        raise DoorUnusable(f"TLS of a door: expected usable PEM files, got {error.strerror}") from error
    return context
