"""Whom results are sent to: what they get, how they are reached, and how they prove that they keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from config.faults import Fault, ascending, refuse
from config.values import STRICT, AETitle, ByteCount, FilePath, Flag, Host, Port, Seconds, UserName, WebUrl, WholeNumber

AE_TITLE = "TRACERD"
ObjectKind = Literal["seg", "labelmap", "rtstruct", "sr", "parametric_map", "pet", "capture"]
OBJECT_KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)
USUAL_OBJECTS: tuple[ObjectKind, ...] = ("seg", "sr", "parametric_map", "pet")
"""What is sent where nobody asks for anything else: a Label Map, contours and a page are second forms of these."""
TransferSyntax = Literal["explicit", "implicit", "deflated"]
"""Of the uncompressed ones of PS3.5 Annex A: Explicit and Implicit VR Little Endian, and Deflated Explicit VR."""
ANY_SYNTAX: tuple[TransferSyntax, ...] = ("explicit", "implicit")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class DestinationTls(BaseModel):
    """TLS towards a destination."""

    model_config = STRICT

    ca: FilePath
    """Certificates (PEM) that sign the destination; it is always verified."""
    certificate: FilePath | None = None
    """Our certificate, PEM, where the destination asks for one."""
    key: FilePath | None = None
    """Our private key, PEM; readable by its owner alone."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        for present, absent in (("certificate", "key"), ("key", "certificate")):
            if getattr(self, present) is not None and getattr(self, absent) is None:
                refuse([Fault((absent,), f"expected the {absent} that belongs to the {present}, got nothing")])
        return self


class Retry(BaseModel):
    """How often something is sent again after a transient error."""

    model_config = STRICT

    first_s: Seconds = 5.0
    """Wait before the second try [s]; it doubles from try to try, with jitter."""
    max_s: Seconds = 900.0
    """Longest wait between two tries [s]: a PACS that is back is noticed within a quarter of an hour."""
    give_up_after_s: Seconds = 259200.0
    """Time until it is given up, and a delivery becomes a dead letter [s]: three days outlast a weekend."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(ascending(self, "first_s", "max_s", "give_up_after_s"))
        return self


class Searching(BaseModel):
    """How it is looked for what a destination accepted; for `proof: seen`."""

    model_config = STRICT

    attempts: WholeNumber = Field(default=6, ge=1, le=100)
    """Requests without a report before it is a dead letter, and searches without a find before it has failed."""
    verify: Literal["found", "pixels"] = "found"
    """For `proof: seen`: found by a query, or also fetched and compared with what was sent, pixels included."""


class Proving(Searching):
    """How a DICOM destination shows that it keeps what it accepted; for `proof: committed` and `proof: seen`."""

    ask_commitment: Flag = True
    """Ask for storage commitment; no, only with `proof: seen`: what was accepted is looked for at once."""
    same_association_s: Seconds = 5.0
    """Wait for the report on the association of the request [s]; after that it may come to a door of ours."""
    report_s: Seconds = 3600.0
    """Longest wait for the report [s]; then it is asked for again."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(ascending(self, "same_association_s", "report_s"))
        return self


class Destination(BaseModel):
    """Somebody we send results to, whatever they speak."""

    model_config = STRICT

    objects: Annotated[tuple[ObjectKind, ...], Field(min_length=1)] = USUAL_OBJECTS
    """What is sent, as far as an engine finds it: seg, labelmap, rtstruct, sr, parametric_map, pet, capture.

    A report refers to the lesions' segments: without seg and labelmap it brings the seg with it.
    """
    fall_back: dict[ObjectKind, ObjectKind] = {}
    """What is sent instead of an object that is too large or that the destination refuses for good, such as
    {seg: rtstruct, rtstruct: capture}."""
    object_bytes_max: ByteCount | None = None
    """Largest object that is sent [bytes]; a larger one has failed, or is replaced as `fall_back` says."""
    report_not_processed: Flag = False
    """Send a report that says why, where an engine cannot process a series for good (no weight, missing slices)."""
    proof: Literal["accepted", "committed", "seen"] = "accepted"
    """What counts as delivered: its status, its storage commitment (DICOM only), or found again by a query."""
    release: Literal["auto", "by-person"] = "auto"
    """Whether results leave by themselves or wait for a person."""
    parallel: WholeNumber = Field(default=1, ge=1, le=16)
    """Associations, or connections, at a time; one keeps the order and spares old archives."""
    timeout_s: Seconds = 60.0
    """Longest wait for an answer [s]."""
    retry: Retry = Retry()
    """How often a delivery is tried again."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        """Every chain of replacements comes to an end."""
        for first in self.fall_back:
            kind, passed = first, {first}
            while (following := self.fall_back.get(kind)) is not None:
                if following in passed:
                    words = f"expected replacements that end, got a circle: {following} would replace itself"
                    refuse([Fault(("fall_back", first), words)])
                kind, passed = following, {*passed, following}
        return self


class DimseDestination(Destination):
    """A destination that is reached by C-STORE, as PACS and workstations are."""

    host: Host
    """Address or name of the destination."""
    port: Port
    """Its DICOM port."""
    ae_title: AETitle
    """Its AE title."""
    calling_ae_title: AETitle = AE_TITLE
    """The title we call with; a PACS often has a list of the ones it knows."""
    tls: DestinationTls | None = None
    """Encryption; the default is none."""
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], Field(min_length=1)] = ANY_SYNTAX
    """In which encodings our results are offered; the first one that the destination accepts is used.

    Objects whose pixels we compress (labelmap, capture) are offered so first, and uncompressed then.
    """
    proving: Proving = Proving()
    """How the two stronger proofs are got."""

    @model_validator(mode="after")
    def _provable(self) -> Self:
        if self.proof == "committed" and not self.proving.ask_commitment:
            words = "expected yes where proof is committed, got no: nothing else would prove it"
            refuse([Fault(("proving", "ask_commitment"), words)])
        return self


class WebDestination(Destination):
    """A destination that is reached by STOW-RS (DICOMweb, PS3.18), as cloud archives and viewers' servers are."""

    url: WebUrl
    """Its DICOMweb service, to which /studies is added, such as https://archive/dicom-web."""
    tls: DestinationTls | None = None
    """Who signs its certificate, for https; the default is whom this machine trusts."""
    token_file: FilePath | None = None
    """File that holds a bearer token, readable by its owner alone; read again for every connection."""
    user: UserName | None = None
    """Name for HTTP basic authentication."""
    password_file: FilePath | None = None
    """File that holds the password of `user`, readable by its owner alone."""
    proof: Literal["accepted", "seen"] = "accepted"
    """What counts as delivered: its STOW-RS response, or found again by QIDO-RS."""
    proving: Searching = Searching()
    """How it is looked for."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        for present, absent in (("user", "password_file"), ("password_file", "user")):
            if getattr(self, present) is not None and getattr(self, absent) is None:
                faults.append(Fault((absent,), f"expected the {absent} that belongs to the {present}, got nothing"))
        if self.token_file is not None and self.user is not None:
            faults.append(Fault(("user",), "expected either a token or a user, got both"))
        encrypted = self.url.startswith("https://")
        secret = self.token_file is not None or self.user is not None
        if secret and not encrypted and urlsplit(self.url).hostname not in LOOPBACK:
            faults.append(Fault(("url",), "expected https where a token or a password is sent, got http"))
        if self.tls is not None and not encrypted:
            faults.append(Fault(("tls",), "expected no tls, or an https url, got an http url"))
        refuse(faults)
        return self


def _spoken(entry: Any) -> str:
    """What a destination speaks: DICOMweb where it has a url, or means one: no DICOM address, but an unknown key."""
    if not isinstance(entry, Mapping):
        return "web" if isinstance(entry, WebDestination) else "dimse"
    addressed = bool(entry.keys() & {"host", "port", "ae_title"})
    strange = bool(entry.keys() - DimseDestination.model_fields.keys())
    return "web" if "url" in entry or (strange and not addressed) else "dimse"


AnyDestination = Annotated[
    Annotated[DimseDestination, Tag("dimse")] | Annotated[WebDestination, Tag("web")], Discriminator(_spoken)
]
