"""The DICOM conformance statement (PS3.2 Annex N): prose of conformance.md, tables made of the code they speak of.

`tracerd conformance` prints it, `make conformance` writes docs/conformance.md. A table lists what the code holds
and looks up a sentence for each entry: an entry nobody has described, or a table nobody asks for, is a KeyError here
and no gap in the statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]  # not in its __all__
from pynetdicom import AE, sop_class

from config.destinations import USUAL_OBJECTS, DimseDestination, WebDestination
from config.settings import Door, Peer, Settings
from config.values import write_duration, write_size
from daemon import deliver, vouch
from daemon.index import Filing
from daemon.node import TRACERD_VERSION
from daemon.parameters import table
from daemon.verdicts import http_heard, on_request, on_store, reasons_heard, statuses_heard
from dicom_io import association, commitment, dimse, headers, kinds, offer, query, requestor, sender, upper_layer
from dicom_io.elements import Limits
from dicom_io.functional_groups import FRAMES_MAX
from dicom_io.reference_objects import RULES
from dicom_io.selftest import markdown
from dicom_io.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.statuses import (
    COMMITMENT_FAILURES,
    NO_SUCH_OBJECT_INSTANCE,
)
from dicom_io.volume import BYTES_MAX
from dicom_io.write.header import FIRST_SERIES_NUMBER, FORMS, SERIES_OFFSETS
from dicom_io.write.kinds import KINDS

TEMPLATE: Final = "conformance.md"
SYNTAX: Final = "Transfer Syntax"
MARK: Final = re.compile(r"^<!-- table of (.+) -->$", re.MULTILINE)

Of = TypeVar("Of")


def statement(settings: Settings | None = None) -> str:
    """The conformance statement in Markdown.

    settings : of a node, whose values then stand beside the defaults
    """
    text = files("daemon").joinpath(TEMPLATE).read_text(encoding="utf-8")
    tables = dict(TABLES) | of_the_settings(settings)
    filled = MARK.sub(lambda mark: tables.pop(mark[1])(), text)
    if tables:
        raise KeyError(f"tables that {TEMPLATE} does not ask for: {', '.join(tables)}")
    return filled.replace(CONTENTS, contents(filled))


CONTENTS: Final = "<!-- contents -->"


def contents(text: str) -> str:
    """Links to the headings of the first two ranks, as GitHub names their anchors."""
    found = re.findall(r"^(##+) (.+)$", text, re.MULTILINE)
    lines = []
    for rank, heading in found:
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        if len(rank) < 4:
            lines.append(f"{'  ' * (len(rank) - 2)}- [{heading}](#{anchor})")
    return "\n".join(lines)


# --- names ----------------------------------------------------------------------------------------------------------


def name_of(uid: str) -> str:
    """Name of a SOP class or transfer syntax in PS3.6; in pynetdicom's words where pydicom does not know it yet."""
    name = UID(uid).name
    if name != uid:
        return name
    keyword = next(keyword for keyword, value in vars(sop_class).items() if value == uid)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", keyword)


def tag_of(keyword: str) -> str:
    """(gggg,eeee) of a keyword; of a private one with xx for the block."""
    private = headers.PRIVATE_ELEMENTS.get(keyword)
    if private is not None:
        return f"({private.group:04X},xx{private.element:02X})"
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def held(module: Any, kind: type[Of]) -> list[Of]:
    """The constants of one type in a module, in the order in which they stand there."""
    return [value for value in vars(module).values() if isinstance(value, kind)]


# --- services, classes, syntaxes --------------------------------------------------------------------------------------


def services() -> str:
    """DIMSE services and in which role."""
    rows = [
        (name_of(offer.VERIFICATION), f"`{offer.VERIFICATION}`", "Y", "Y"),
        (f"Storage: {len(offer.STANDARD_STORAGE)} standard classes and every private one", "see 1.1", "Y", "Y"),
        (name_of(offer.STORAGE_COMMITMENT), f"`{offer.STORAGE_COMMITMENT}`", "Y", "Y"),
        (name_of(query.FIND), f"`{query.FIND}`", "Y", "N"),
        (name_of(query.GET), f"`{query.GET}`", "Y", "N"),
    ]
    return markdown(("DIMSE service", "SOP class UID", "SCU", "SCP"), rows)


def web_services() -> str:
    """DICOMweb transactions and in which role."""
    names = {
        "Store (STOW-RS)": "10.5",
        "Search (QIDO-RS) for instances": "10.6",
        "Retrieve (WADO-RS) of an instance": "10.4",
    }
    rows = [(name, section, "Y", "N") for name, section in names.items()]
    return markdown(("DICOMweb transaction", "PS3.18", "user agent", "origin server"), rows)


def created() -> str:
    """The kinds of objects that jobs write."""
    rows = []
    for kind in KINDS:
        form, series = FORMS[kind], DESCRIPTIONS[kind]
        usual = "yes" if kind in USUAL_OBJECTS else "no"
        uids = name_of(form.sop_class_uid), f"`{form.sop_class_uid}`", form.modality, name_of(form.transfer_syntax_uid)
        number = f"{FIRST_SERIES_NUMBER} + 10 j + {SERIES_OFFSETS[kind]}"
        rows.append((f"`{kind}`", *uids, f"{series} ENGINE RESEARCH USE ONLY", number, usual))
    heads = (
        "object",
        "SOP class",
        "UID",
        "Modality",
        "transfer syntax",
        "Series Description",
        "Series Number",
        "usual",
    )
    return markdown(heads, rows)


DESCRIPTIONS: Final[Mapping[str, str]] = {
    "seg": "Lesions *or* Regions",
    "labelmap": "Lesions *or* Regions",
    "rtstruct": "Lesions *or* Regions",
    "sr": "Report *or* Not processed",
    "parametric_map": "*name of the volume*",
    "pet": "*name of the volume*",
    "capture": "Summary",
    "sr_labelmap": "Report",
}


def analysed() -> str:
    """The classes whose pixels are read."""
    rows = [
        (modality, name_of(uid), f"`{uid}`") for modality, uids in kinds.SOP_CLASSES.items() for uid in sorted(uids)
    ]
    return markdown(("Modality", "SOP class", "UID"), rows)


def storage_classes() -> str:
    """Every storage class a door accepts; all of them can be forwarded."""
    written = {form.sop_class_uid for form in FORMS.values()}
    rows = sorted(
        (name_of(uid), f"`{uid}`", "creates, forwards" if uid in written else "forwards", "Y")
        for uid in offer.STANDARD_STORAGE
    )
    return markdown(("SOP class", "UID", "SCU", "SCP"), [*rows, ("every private SOP class", "", "forwards", "Y")])


def transfer_syntaxes() -> str:
    """What a door accepts, in order of preference."""
    rows = [
        (str(number), name_of(uid), f"`{uid}`", "Y" if uid in offer.UNCOMPRESSED else "N")
        for number, uid in enumerate(offer.TRANSFER_SYNTAXES, start=1)
    ]
    return markdown(("preference", "transfer syntax", "UID", "also for Verification and Storage Commitment"), rows)


def refused_syntaxes() -> str:
    """The current transfer syntaxes of PS3.6 that no door accepts."""
    current = [uid for uid, (_, kind, _, retired, _) in UID_dictionary.items() if kind == SYNTAX and not retired]
    return "\n".join(f"- {name_of(uid)}" for uid in current if uid not in offer.TRANSFER_SYNTAXES)


def character_sets() -> str:
    """The Defined Terms that are decoded."""
    return ", ".join(f"`{term}`" for term in sorted(python_encoding) if term)


# --- associations -----------------------------------------------------------------------------------------------------


def identity() -> str:
    """Who we say we are."""
    rows = [
        ("Application Context Name", f"`{upper_layer.APPLICATION_CONTEXT}`"),
        ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
        ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ("Software version", TRACERD_VERSION),
    ]
    return markdown(("name", "value"), rows)


def acceptor() -> str:
    """What holds of associations that peers open."""
    contexts = "128, each with any number of transfer syntaxes"
    rows = [
        ("ARTIM time-out after our last word", write_duration(association.LINGER_S)),
        ("A-ASSOCIATE-RQ, longest", write_size(association.ASSOCIATE_BYTES_MAX)),
        ("presentation contexts", contexts),
        ("command set, longest", write_size(dimse.COMMAND_BYTES_MAX)),
        ("storage commitment request or report, longest", write_size(association.COMMITMENT_BYTES_MAX)),
        ("instances in one of these, most", f"{commitment.ITEMS_MAX}"),
        ("data set of any other request (read, not kept), longest", write_size(association.OTHER_DATA_SET_BYTES_MAX)),
        (f"fragments below {association.SMALL_FRAGMENT_BYTES} B in one message", f"{association.SMALL_FRAGMENTS_MAX}"),
        ("outstanding operations", "1; the asynchronous operations window is not answered"),
    ]
    return markdown(("as association acceptor", "value, not configurable"), rows)


def initiator() -> str:
    """What holds of associations that we open."""
    rows = [
        ("longest PDU we take", f"{AE().maximum_pdu_size} B"),
        ("longest PDU we send", f"as the peer says; below {requestor.PDU_BYTES_MIN} B we abort"),
        ("wait for connection, A-ASSOCIATE-AC and A-RELEASE-RP", f"`timeout_s`, at most {requestor.NEGOTIATION_S:g} s"),
        ("wait for a response", f"`timeout_s`; to C-STORE longer by 1 s for {sender.SLOWEST_BYTES_PER_S} B"),
        ("instances in one association", f"at most {deliver.BATCH}"),
        ("presentation contexts", f"at most {sender.CONTEXTS_MAX}, one transfer syntax each"),
        ("associations at a time to one destination", "`parallel`"),
        ("outstanding operations", "1"),
        ("answers read of one C-FIND", f"at most {query.MATCHES_MAX}"),
    ]
    return markdown(("as association initiator", "value"), rows)


def proposed() -> str:
    """The presentation contexts of associations that we open."""
    results = "compressed as made, where pixels are; then those of `transfer_syntaxes`"
    implicit, explicit = (name_of(uid) for uid in (commitment.IMPLICIT_VR_LITTLE_ENDIAN, offer.UNCOMPRESSED[0]))
    rows = [
        ("`tracerd doctor`, C-ECHO", name_of(offer.VERIFICATION), implicit, "SCU"),
        ("sending originals", "those of the instances", "the one each instance is stored in", "SCU"),
        ("sending results", "those of the instances", results, "SCU"),
        ("asking for storage commitment", name_of(offer.STORAGE_COMMITMENT), implicit, "SCU"),
        (
            "reporting on a peer's request",
            name_of(offer.STORAGE_COMMITMENT),
            implicit,
            "SCU, and SCP by role selection",
        ),
        ("looking for what was sent", name_of(query.FIND), implicit, "SCU"),
        ("fetching it back", name_of(query.GET), implicit, "SCU"),
        ("", "those of the instances", f"{explicit}; {implicit}", "SCU, and SCP by role selection"),
    ]
    return markdown(("activity", "SOP class", "transfer syntax", "our role"), rows)


REJECTED: Final[Mapping[str, str]] = {
    "protocol-version": "a protocol version other than 1",
    "application-context": "an application context other than DICOM's",
    "calling-ae-not-recognized": "no calling AE title, or none configured for this address under `peers`",
    "called-ae-not-recognized": "the door does not answer to this AE title, and `any_ae_title` is no",
    "local-limit-exceeded": "`associations` or `associations_per_peer` are open: come back later",
}


def rejections() -> str:
    """Every A-ASSOCIATE-RJ there is."""
    results = {1: "rejected permanent", 2: "rejected transient"}
    rows = [
        (f"{one.result} ({results[one.result]})", str(one.source), str(one.reason), REJECTED[one.code])
        for one in held(upper_layer, upper_layer.Rejection)
    ]
    return markdown(("result", "source", "reason", "when"), rows)


# --- statuses we give -------------------------------------------------------------------------------------------------

STORED: Final = "the bytes would survive a power cut; nothing was parsed yet, see 5.2.5.2"
GIVEN: Final[Mapping[dimse.Status, str]] = {
    dimse.SUCCESS: STORED,
    dimse.SOP_CLASS_NOT_SUPPORTED: "the context, or the class in the request, is none of storage",
    dimse.CLOSED: "the operator has closed the node; try again later",
    dimse.DISK_FULL: "less than `free_bytes_min` is free, or the disk is full; try again later",
    dimse.NOT_WRITTEN: "the disk refused to write or to flush; try again later",
    dimse.ILLEGAL_UID: "it names no usable SOP Class or Instance UID",
    dimse.EMPTY_DATA_SET: "a request without data",
    dimse.INTERNAL_ERROR: "a defect of ours; nothing was stored",
}
GIVEN_ELSEWHERE: Final[Mapping[dimse.Status, tuple[str, str]]] = {
    dimse.NO_SUCH_ACTION: ("N-ACTION", "an Action Type ID other than 1"),
    dimse.NO_ADDRESS_FOR_REPORT: ("N-ACTION", "no `report_to` for this peer: we could not tell it the result"),
    dimse.NO_SUCH_EVENT_TYPE: ("N-EVENT-REPORT", "an Event Type ID other than 1 and 2"),
    dimse.UNRECOGNIZED_OPERATION: ("any other", "only C-ECHO, C-STORE, N-ACTION and N-EVENT-REPORT are served"),
}


def store_given() -> str:
    """Statuses of C-STORE; one of `dimse` that is in neither mapping is an error."""
    rows = [
        (f"{one.code:04X}", one.comment or "none", GIVEN[one])
        for one in held(dimse, dimse.Status)
        if one not in GIVEN_ELSEWHERE
    ]
    return markdown(("status", "Error Comment (0000,0902)", "when"), rows)


def request_given() -> str:
    """Statuses of everything but C-STORE; those of C-STORE in other words included."""
    rows = [("N-ACTION, N-EVENT-REPORT", "0000", "none", "the request or report is kept, and worked on afterwards")]
    rows += [(service, f"{one.code:04X}", one.comment, when) for one, (service, when) in GIVEN_ELSEWHERE.items()]
    for one, when in GIVEN.items():
        told = dimse.as_request_status(one)
        if told != one and one is not dimse.ILLEGAL_UID:  # their UIDs are the well-known ones
            rows.append(("N-ACTION, N-EVENT-REPORT", f"{told.code:04X}", told.comment, when))
    return markdown(("request", "status", "Error Comment (0000,0902)", "when"), rows)


NOT_KEPT: Final[Mapping[int, str]] = {
    NO_SUCH_OBJECT_INSTANCE: "we hold no such instance, or its bytes made room for newer studies",
    vouch.CLASS_INSTANCE_CONFLICT: "we hold it under another SOP class",
    commitment.PROCESSING_FAILURE: "its file is gone, cannot be read or has another digest than when it came; or two "
    "copies with different content came under its UID and nobody has decided between them",
    vouch.DUPLICATE_TRANSACTION_UID: "for every instance of a request whose Transaction UID was used for others before",
}


def reasons_given() -> str:
    """Failure reasons of storage commitment as provider."""
    rows = [
        (f"{reason:04X}", word.replace("-", " "), NOT_KEPT.get(reason, "code is not used"))
        for reason, word in sorted(COMMITMENT_FAILURES.items())
    ]
    return markdown(("Failure Reason (0008,1197)", "meaning", "when we give it"), rows)


# --- what is received and read ----------------------------------------------------------------------------------------

FILED: Final[Mapping[Filing, tuple[str, str]]] = {
    Filing.NEW: ("its SOP Instance UID is new", "kept, and processed as the rules say"),
    Filing.ALREADY_FILED: ("the same file again after a crash of ours", "nothing; it was filed before"),
    Filing.DUPLICATE: ("decoded, it is equal to a copy we hold, whatever its encoding", "the newcomer is dropped"),
    Filing.COERCED: (
        "it differs only in attributes that decide nothing here (names, accession number …)",
        "the first copy stays; an event lists the attributes",
    ),
    Filing.CONFLICTING: (
        "its pixels differ, or an attribute that decides (see annex A.3)",
        "both are kept, waiting jobs are held; a person decides with `tracerd conflicts accept` or `discard`",
    ),
    Filing.RETURNED: ("a result of ours that a PACS sends back", "noted, never processed"),
    Filing.UNREADABLE: ("it cannot be read within the limits", "moved to quarantine with the reason, counted"),
}


def filings() -> str:
    """What becomes of an instance when it is read."""
    return markdown(("verdict", "when", "what happens"), [(f"{one}", *FILED[one]) for one in Filing])


OBJECT_LIMITS: Final[Mapping[str, str]] = {
    "file_bytes": "file",
    "depth": "nesting of sequences",
    "elements": "elements of all levels",
    "value_bytes": "value that is kept in the index (longer ones stay in the file)",
    "decoded_bytes": "pixels when decompressed",
    "inflated_bytes": "deflated data set when inflated",
    "inflation": "the same, where that is more: times its own size",
}


def object_limits() -> str:
    """How large an object may be."""
    limits = Limits()
    rows = []
    for one in fields(Limits):
        value = getattr(limits, one.name)
        rows.append((OBJECT_LIMITS[one.name], write_size(value) if one.name.endswith("_bytes") else str(value)))
    rows += [("frames of a multi-frame object", str(FRAMES_MAX)), ("volume handed to an engine", write_size(BYTES_MAX))]
    return markdown(("largest", "limit, not configurable"), rows)


PRIVATE_USE: Final[Mapping[str, str]] = {
    "PhilipsSUVScaleFactor": "SUV of series in counts (Units CNTS)",
    "PhilipsActivityConcentrationScaleFactor": "Bq/mL of series in counts, where the SUV factor is 0 or absent",
    "GEScanDateTime": "decay reference, where Series Time is no use",
}


def private_attributes() -> str:
    """The private attributes that are read."""
    rows = [
        (tag_of(keyword), one.creator, one.vr, PRIVATE_USE[keyword])
        for keyword, one in headers.PRIVATE_ELEMENTS.items()
    ]
    return markdown(("tag", "private creator", "VR", "used for"), rows)


def suv_attributes() -> str:
    """Which attributes decide how an SUV is computed."""
    return markdown(("branch", "decided by"), [(f"`{rule.branch}`", rule.tags) for rule in RULES])


def attributes_read() -> str:
    """Every public attribute of the top level that is read."""
    decides = [(keyword, "decides") for keyword in headers.MEANING_KEYWORDS]
    shown = [(keyword, "shown, matched by rules") for keyword in headers.IDENTIFICATION_KEYWORDS]
    rows = sorted((tag_of(keyword), dictionary_description(keyword), use) for keyword, use in (*decides, *shown))
    return markdown(("tag", "attribute", "use"), rows)


# --- the statement ----------------------------------------------------------------------------------------------------

Table = Callable[[], str]
TABLES: Final[Mapping[str, Table]] = {
    "services": services,
    "objects created": created,
    "images analysed": analysed,
    "storage classes": storage_classes,
    "transfer syntaxes": transfer_syntaxes,
    "transfer syntaxes refused": refused_syntaxes,
    "character sets": character_sets,
    "identity": identity,
    "acceptor": acceptor,
    "initiator": initiator,
    "contexts proposed": proposed,
    "rejections": rejections,
    "statuses given to C-STORE": store_given,
    "statuses given to other requests": request_given,
    "failure reasons given": reasons_given,
    "failure reasons received": reasons_heard,
    "statuses received from C-STORE": lambda: statuses_heard(on_store, "accepted"),
    "statuses received from other requests": lambda: statuses_heard(on_request, "done"),
    "statuses received over HTTP": http_heard,
    "web services": web_services,
    "copies of one UID": filings,
    "limits of an object": object_limits,
    "private attributes": private_attributes,
    "SUV": suv_attributes,
    "attributes read": attributes_read,
}


def of_the_settings(settings: Settings | None) -> dict[str, Table]:
    """The tables that show what a node is configured to; without settings, the defaults alone."""
    node: dict[str, BaseModel] = {} if settings is None else {"this node": settings}
    doors = {} if settings is None else {f"{door.host}:{door.port}": door for door in settings.listener.doors}
    peers = {} if settings is None else {peer.name: peer for peer in settings.peers}
    destinations = {} if settings is None else settings.destinations
    dimse_ones = {name: one for name, one in destinations.items() if isinstance(one, DimseDestination)}
    web_ones = {name: one for name, one in destinations.items() if isinstance(one, WebDestination)}
    return {
        "whose": lambda: WHOSE[settings is not None],
        "doors": lambda: table(Door, doors),
        "listener": lambda: table(Settings, node, under=("listener", "allow_unknown_peers")),
        "peers": lambda: table(Peer, peers),
        "destinations": lambda: table(DimseDestination, dimse_ones),
        "web destinations": lambda: table(WebDestination, web_ones),
        "retention": lambda: table(Settings, node, under=("retention",)),
    }


WHOSE: Final = {
    False: f"It states version {TRACERD_VERSION} with the defaults of its settings. "
    "`tracerd conformance --config FILE` prints the statement of a node as it is configured.",
    True: f"It states version {TRACERD_VERSION} as one node is configured: its values stand beside the defaults.",
}
