"""What a site may say about its node: addresses, limits, destinations, rules. Frozen; an unknown key is a fault.

A configuration is built by `config.load.parse`, which also checks what needs two places of the file to see (a rule
that names a destination, two doors on one port). Sizes are bytes, durations seconds; in the file both may carry a
unit ("512 MiB", "30 min").
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from config.destinations import AE_TITLE, AnyDestination, DestinationTls, Retry
from config.faults import Expected, Fault, ascending, refuse
from config.rules import Rules, rules_text
from config.values import (
    STRICT,
    AETitle,
    ByteCount,
    FilePath,
    Flag,
    Host,
    Name,
    Network,
    Port,
    Seconds,
    TimeZone,
    WholeNumber,
)

DICOM_PORT = 11112
ANY_HOST = "0.0.0.0"  # noqa: S104 - a listener is there to be reached; who may speak is decided by `peers`


def _distinct(titles: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(titles)) < len(titles):
        raise Expected("every entry once")
    return titles


class DoorTls(BaseModel):
    """TLS of a door (DICOM PS3.15 B.12: BCP 195 profile, TLS 1.2 or newer)."""

    model_config = STRICT

    certificate: FilePath
    """Our certificate with its chain, PEM."""
    key: FilePath
    """Our private key, PEM; readable by its owner alone."""
    client_ca: FilePath | None = None
    """Certificates (PEM) that sign our peers; given, a peer without a certificate is refused. Default: none asked."""


class Door(BaseModel):
    """One address at which the node listens."""

    model_config = STRICT

    host: Host = ANY_HOST
    """Address of the network card to listen on; the default is every card."""
    port: Port = DICOM_PORT
    """TCP port; 11112 needs no root rights, 2762 is usual for TLS (PS3.15 B.12)."""
    ae_titles: Annotated[tuple[AETitle, ...], Field(min_length=1, max_length=64), AfterValidator(_distinct)] = (
        AE_TITLE,
    )
    """Called AE titles this door answers to; several let the rules tell senders' purposes apart."""
    tls: DoorTls | None = None
    """Encryption; the default is none, as most scanners speak plain DICOM inside the hospital."""


class Limits(BaseModel):
    """What one peer may cost the node."""

    model_config = STRICT

    associations: WholeNumber = Field(default=50, ge=1, le=1000)
    """Open associations of all peers; one more is refused as transient, so that the peer comes back."""
    associations_per_peer: WholeNumber = Field(default=10, ge=1, le=1000)
    """Open associations of one address: a scanner that hangs must not shut out the others."""
    pdu_bytes: ByteCount = Field(default=128 * 1024, ge=4096)
    """Largest PDU we ask for [bytes]: a CT slice in a few pieces."""
    pdu_bytes_max: ByteCount = Field(default=1024 * 1024, ge=4096)
    """Longest PDU we read [bytes]; a peer that claims more is cut off before memory is taken."""
    message_bytes: ByteCount = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Largest received object [bytes]: a long enhanced multi-frame PET fits."""
    handshake_s: Seconds = 10.0
    """Time for TLS and the association request [s]: silent sockets must not hold places."""
    read_s: Seconds = 30.0
    """Longest silence inside a message [s]."""
    idle_s: Seconds = 300.0
    """Silence between two messages after which an association is ended [s]: scanners send while they reconstruct."""
    message_s: Seconds = 600.0
    """Longest time for one object [s]: the largest one over a slow line."""
    association_s: Seconds = 7200.0
    """Longest association [s]: a whole dynamic study, with room."""
    free_bytes_min: ByteCount = 1024 * 1024 * 1024
    """Free disk space below which nothing is promised any more (0xA700) [bytes]: results still need room.

    At 1 the door refuses only when the disk is full.
    """

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(
            [
                *ascending(self, "associations_per_peer", "associations"),
                *ascending(self, "pdu_bytes", "pdu_bytes_max", "message_bytes"),
                *ascending(self, "read_s", "message_s", "association_s"),
            ]
        )
        return self


class Listener(BaseModel):
    """The receiving side."""

    model_config = STRICT

    doors: Annotated[tuple[Door, ...], Field(min_length=1, max_length=16)] = (Door(),)
    """Addresses we listen at; the default is one plain door on port 11112."""
    any_ae_title: Flag = False
    """Answer to every called AE title; off by default, a wrong title is usually a wrong address."""
    processes: WholeNumber = Field(default=1, ge=1, le=16)
    """Listener processes that share the doors; one takes about a thousand slices a second."""
    limits: Limits = Limits()
    """What one peer may cost the node."""


class ReportTo(BaseModel):
    """Where a peer hears what we say about its objects (storage commitment, PS3.4 Annex J)."""

    model_config = STRICT

    host: Host
    """Address or name of the peer's own DICOM server."""
    port: Port
    """Its DICOM port."""
    tls: DestinationTls | None = None
    """Encryption; the default is none."""
    retry: Retry = Retry()
    """How often a report is tried again; given up, the peer has to ask again."""


class Peer(BaseModel):
    """Somebody who may send to us."""

    model_config = STRICT

    name: Name
    """What people call it; shown in tables and logs."""
    ae_title: AETitle
    """Its calling AE title."""
    addresses: Annotated[tuple[Network, ...], Field(min_length=1, max_length=64)]
    """Where it calls from; 0.0.0.0/0 and ::/0 together mean anywhere."""
    report_to: ReportTo | None = None
    """Where it is told whether we keep what it sent; without it we refuse its storage commitment requests."""


class Assemble(BaseModel):
    """When a series or study counts as whole."""

    model_config = STRICT

    quiet_s: Seconds = 10.0
    """Silence after which a CT that covers its PET is whole [s]; the PET counts itself."""
    quiet_other_s: Seconds = 30.0
    """Silence after which any other series is whole [s]: nothing says how many slices to expect."""
    maximum_wait_s: Seconds = 1800.0
    """Time after which what is missing is missing [s]; then the rule says hold, run or drop."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(ascending(self, "quiet_s", "quiet_other_s", "maximum_wait_s"))
        return self


class Execute(BaseModel):
    """The workers that run engines."""

    model_config = STRICT

    workers: WholeNumber = Field(default=1, ge=1, le=64)
    """Processes that run one job each; one per GPU, or one on a machine without."""
    memory_bytes: ByteCount = Field(default=8 * 2**30, ge=256 * 2**20)
    """Memory of one worker [bytes]; above it the worker is restarted and the attempt counts."""
    time_limit_s: Seconds = 900.0
    """Longest run of one job [s]: many times what an engine needs on a CPU."""
    attempts: WholeNumber = Field(default=3, ge=1, le=20)
    """Runs before a job becomes a dead letter: an error that comes three times comes always."""
    interruptions: WholeNumber = Field(default=5, ge=1, le=100)
    """Times the node may die under a job before the job is held: it may be the cause."""


class Retention(BaseModel):
    """When finished studies make room."""

    model_config = STRICT

    high_water_percent: WholeNumber = Field(default=85, ge=2, le=99)
    """Filling of the disk at which the sweep starts [%]."""
    low_water_percent: WholeNumber = Field(default=75, ge=1, le=98)
    """Filling of the disk at which the sweep ends [%]: ten points lower, so that it runs seldom."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low_water_percent >= self.high_water_percent:
            words = f"expected less than high_water_percent ({self.high_water_percent}), got {self.low_water_percent}"
            refuse([Fault(("low_water_percent",), words)])
        return self


class Settings(BaseModel):
    """Everything a site says about its node."""

    model_config = STRICT

    data: FilePath = Path("tracerd-data")
    """Folder of everything the node keeps; relative to the folder the node is started in."""
    timezone: TimeZone
    """IANA name of the scanners' time zone, such as Europe/Berlin.

    DICOM times without (0008,0201) are local; a wrong guess shifts the uptake time by hours, so there is no default.
    """
    listener: Listener = Listener()
    """The receiving side."""
    peers: Annotated[tuple[Peer, ...], Field(max_length=1000)] = ()
    """Who may send to us; nobody else may."""
    allow_unknown_peers: Flag = False
    """Let everybody send; for a trial in a closed network."""
    destinations: dict[Name, AnyDestination] = {}
    """Whom rules may send to, by name."""
    assemble: Assemble = Assemble()
    """When a series or study counts as whole."""
    execute: Execute = Execute()
    """The workers that run engines."""
    retention: Retention = Retention()
    """When finished studies make room."""
    rules: Rules = ()
    """Which series go to which engine and where the results go; none: the node only stores."""

    def rules_text(self) -> str:
        """The rule set in its canonical spelling; `config.load.parse_rules` reads it back."""
        return rules_text(self.rules)

    def rules_sha256(self) -> str:
        """Digest of the canonical spelling: comments and layout of the file do not change it."""
        return hashlib.sha256(self.rules_text().encode()).hexdigest()
