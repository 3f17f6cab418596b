"""Who may come in; pure, and a few words about everybody else."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Any

from config.settings import Door, Peer, Settings
from dicom_io.upper_layer import (
    APPLICATION_CONTEXT,
    APPLICATION_CONTEXT_NOT_SUPPORTED,
    CALLED_AE_NOT_RECOGNIZED,
    CALLING_AE_NOT_RECOGNIZED,
    PROTOCOL_VERSION_NOT_SUPPORTED,
    AssociateRequest,
    Rejection,
)

COMPLAIN_EVERY_S = 10.0
COMPLAINTS_MAX = 1000


def peers_at(settings: Settings, address: str) -> list[Peer]:
    """The configured peers that may connect from this address."""
    parsed = ipaddress.ip_address(address)
    return [peer for peer in settings.peers if any(parsed in network for network in peer.addresses)]


def recognize(settings: Settings, address: str) -> tuple[str, bool]:
    """An address as people write it (IPv4 that came through an IPv6 socket as IPv4), and whether it may connect."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    plain = str((isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped) or parsed)
    return plain, settings.allow_unknown_peers or bool(peers_at(settings, plain))


def rejection_of(request: AssociateRequest, door: Door, peers: Sequence[Peer], settings: Settings) -> Rejection | None:
    """Why this request is refused for good, None when it is not.

    peers : those configured for the address it comes from
    """
    if not request.protocol_version & 1:
        return PROTOCOL_VERSION_NOT_SUPPORTED
    if request.application_context != APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    known = settings.allow_unknown_peers or request.calling_ae in {peer.ae_title for peer in peers}
    if not request.calling_ae or not known:
        return CALLING_AE_NOT_RECOGNIZED
    if not settings.listener.any_ae_title and request.called_ae not in door.ae_titles:
        return CALLED_AE_NOT_RECOGNIZED
    return None


class Complaints:
    """Log lines about refused connections: who knocks ten thousand times is one line in ten seconds, with the count."""

    def __init__(self, log: Callable[..., Any]) -> None:
        self._log = log
        self._since: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, code: str, address: str) -> None:
        """Somebody at this address was refused."""
        now = time.monotonic()
        since, silent = self._since.get((code, address), (-COMPLAIN_EVERY_S, 0))
        if now - since < COMPLAIN_EVERY_S:
            self._since[code, address] = (since, silent + 1)
            return
        if len(self._since) >= COMPLAINTS_MAX:
            self._since.clear()
        self._since[code, address] = (now, 0)
        self._log("connection-refused", code=code, address=address, before=silent)
