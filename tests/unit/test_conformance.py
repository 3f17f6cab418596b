"""The conformance statement against the dictionaries of pydicom, objects really written, and settings."""

import ast
import inspect
import re
from dataclasses import make_dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from pydicom.datadict import DicomDictionary
from pydicom.uid import UID_dictionary

from config.destinations import USUAL_OBJECTS, DimseDestination, WebDestination
from config.load import load, parse
from config.settings import Limits, Settings
from config.values import STRICT, ByteCount, Flag, Seconds, read_duration, read_size, write_duration, write_size
from daemon import conformance, vouch
from daemon.conformance import statement
from daemon.parameters import parameters, table
from dicom_io import commitment, dimse, elements, query
from dicom_io.statuses import COMMITMENT_FAILURES, judge_http
from dicom_io.volume import load as load_volume
from dicom_io.write.concepts import PRIVATE_SCHEME
from dicom_io.write.header import encode
from dicom_io.write.kinds import KINDS
from dicom_io.write.objects import objects
from engines.contract import Quantity, Volume
from tests import findings, make
from tests.findings import IDENTITY
from tests.statement import CLASSES, DIMSE, GIVEN, PAGE, SYNTAXES, rows, tables

TEXT = PAGE.read_text()
EXAMPLE = Path(conformance.__file__).parents[1] / "config" / "node.example.yaml"
NEWER_THAN_PYDICOM = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
}
"""PS3.6 table A-1 of 2025."""


def test_the_page_is_what_the_code_says() -> None:
    assert statement() == TEXT, "make conformance"


def test_every_name_is_that_of_the_dictionary() -> None:
    """Each UID of DICOM in a table, with the name in the cell before it."""
    named = re.findall(r"\| ([^|]+) \| `(1\.2\.840\.10008\.[0-9.]+)` \|", TEXT)
    assert len(named) > 200
    for name, uid in named:
        known = UID_dictionary.get(uid)
        assert name in {NEWER_THAN_PYDICOM[uid] if known is None else known[0], "Application Context Name"}
    unknown = {uid for _, uid in named if uid not in UID_dictionary}
    assert unknown == set(NEWER_THAN_PYDICOM)


def test_no_class_or_syntax_stands_in_its_table_twice() -> None:
    for heads, column in ((CLASSES, 1), (SYNTAXES, 2), (DIMSE, 1)):
        uids = [row[column] for row in rows(TEXT, *heads)]
        assert len(set(uids)) == len(uids)
    assert f"{len(rows(TEXT, *CLASSES)) - 1} standard classes" in TEXT


def test_every_tag_has_its_name() -> None:
    listed = rows(TEXT, "tag", "attribute", "use")
    assert len(listed) > 80
    for tag, name, use in listed:
        group, element = tag.strip("()").split(",")
        assert DicomDictionary[int(group + element, 16)][2] == name
        assert use in {"decides", "shown, matched by rules"}


def test_the_objects_of_the_table_are_those_that_are_written(tmp_path: Path) -> None:
    shape = (6, 12, 10)
    source = load_volume(make.study(tmp_path, pet_shape=shape).pet, Quantity.SUVBW, findings.BERLIN)
    flow = Volume(np.full(shape, 1.5, np.float32), source.volume.affine, Quantity.MBF)
    made = objects(findings.products(source, volumes={"MBF": flow}), source, IDENTITY, KINDS)
    written = {one.kind: pydicom.dcmread(pydicom.filebase.DicomBytesIO(encode(one.dataset))) for one in made}
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
    listed = {row[0]: row[2:] for row in rows(TEXT, *heads)}
    assert set(listed) == set(written)
    for kind, (uid, modality, syntax, description, number, usual) in listed.items():
        read = written[kind]
        assert (uid, modality, syntax) == (read.SOPClassUID, read.Modality, read.file_meta.TransferSyntaxUID.name)
        begins = [begin.strip() for begin in description.split(" ENGINE ")[0].split("*or*")]
        begins = ["MBF" if begin == "*name of the volume*" else begin for begin in begins]
        assert read.SeriesDescription in {f"{begin} {IDENTITY.engine} RESEARCH USE ONLY" for begin in begins}
        first, digit = re.fullmatch(r"(\d+) \+ 10 j \+ (\d)", number).groups()
        assert read.SeriesNumber == int(first) + 10 * (IDENTITY.job_id % 100) + int(digit)
        assert usual == ("yes" if kind in USUAL_OBJECTS else "no")


def test_the_failure_reasons_we_give_are_those_in_the_code_that_gives_them() -> None:
    """Every `failure=NAME` of vouch.py, and the name that `ask_again` hands on."""
    tree = ast.parse(inspect.getsource(vouch))
    named = {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "failure" and isinstance(node.value, ast.Name)
    }
    given_there = {getattr(vouch, name) for name in named if name.isupper()} | {vouch.DUPLICATE_TRANSACTION_UID}
    told, heard = (
        rows(TEXT, "Failure Reason (0008,1197)", "meaning", last) for last in ("when we give it", "what we do")
    )
    assert {int(row[0], 16) for row in told if row[2] != "code is not used"} == given_there
    assert {int(row[0], 16) for row in told} == set(COMMITMENT_FAILURES)
    assert [row[0] for row in heard if "sent again, until" in row[2]] == ["0112"]


# --- parameters -------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 30 * 86400) | st.integers(1, 30 * 86400).map(float))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    rounded = round(seconds, 3)
    assert read_duration(write_duration(rounded)) == pytest.approx(rounded, abs=1e-6)


@given(st.integers(1, 10**15 - 1) | st.integers(0, 40).map(lambda power: 2**power))
def test_a_written_size_is_read_back(count: int) -> None:
    assert read_size(write_size(count)) == count


def test_the_defaults_shown_are_those_of_the_models() -> None:
    listed = [row for one in tables(TEXT, *PARAMETER) for row in one]
    shown = {path.removeprefix("listener.limits."): default for path, default, _ in listed if "limits" in path}
    for name, field in Limits.model_fields.items():
        read = read_duration if name.endswith("_s") else read_size
        words = shown[name]
        assert (read(words) if " " in words else int(words)) == field.default
    # once by hand, against the example that people copy
    assert (shown["associations"], shown["pdu_bytes"], shown["idle_s"]) == ("50", "128 KiB", "5 min")


PARAMETER = ("parameter", "default", "what it is")


class Token(BaseModel):
    model_config = STRICT

    url: str
    """Where it is."""
    most_bytes: ByteCount | None = None
    """Largest object [bytes]."""
    token: SecretStr | None = None
    """What opens it."""


class Reached(BaseModel):
    model_config = STRICT

    wait_s: Seconds = 90.0
    """How long | whether.

    A second paragraph.
    """
    way: Literal["fast", "slow"] = "fast"
    """Which."""
    open: Flag = False
    web: Token | None = None
    """The other way."""
    near: Token = Token(url="near", most_bytes=2**20)
    many: tuple[Token, ...] = ()
    several: tuple[str, ...] = ("a", "b")


def test_a_new_setting_is_in_the_table_by_itself() -> None:
    reached = Reached(web=Token(url="far", token=SecretStr("hidden")))
    got = rows(table(Reached, {"one": Reached(), "two": reached}), "parameter", "one", "two", "default", "what it is")
    assert got == [
        ("wait_s", "90 s", "90 s", "90 s", "How long \\| whether."),
        ("way", "fast", "fast", "fast", "Which."),
        ("open", "no", "no", "no", ""),
        ("web", "none", "given", "none", "The other way."),
        ("web.url", "–", "far", "required", "Where it is."),
        ("web.most_bytes", "–", "none", "none", "Largest object [bytes]."),
        ("web.token", "–", "**********", "none", "What opens it."),
        ("near.url", "near", "near", "near", "Where it is."),
        ("near.most_bytes", "1 MiB", "1 MiB", "1 MiB", "Largest object [bytes]."),
        ("near.token", "none", "none", "none", "What opens it."),
        ("several", "a, b", "a, b", "a, b", ""),
    ]


def test_every_setting_of_a_destination_is_on_the_page() -> None:
    *_, dimse_ones, web_ones = ({path for path, _, _ in one} for one in tables(TEXT, *PARAMETER))
    for model, listed in ((DimseDestination, dimse_ones), (WebDestination, web_ones)):
        assert {".".join(one.path) for one in parameters(model)} == listed
    assert dimse_ones > {"host", "ae_title", "proving.verify", "retry.give_up_after_s", "tls.ca"}
    assert web_ones > {"url", "token_file"}


def test_the_statement_of_a_node_has_its_values_beside_the_defaults() -> None:
    settings = parse(
        {
            "timezone": "Europe/Berlin",
            "listener": {
                "doors": [{"port": 104}, {"host": "10.0.0.1", "port": 2762, "ae_titles": ["PETNODE", "RESEARCH"]}],
                "limits": {"message_bytes": "2 GiB"},
            },
            "peers": [{"name": "PET-CT 1", "ae_title": "PETCT1", "addresses": ["10.1.2.0/24"]}],
            "destinations": {"pacs": {"host": "10.1.2.9", "port": 104, "ae_title": "PACS", "timeout_s": "2 min"}},
        }
    )
    text = statement(settings)
    doors = {row[0]: row[1:3] for row in rows(text, "parameter", "0.0.0.0:104", "10.0.0.1:2762", *PARAMETER[1:])}
    assert doors["ae_titles"] == ("TRACERD", "PETNODE, RESEARCH")
    assert doors["tls"] == ("none", "none")
    listener = {row[0]: row[1:3] for one in tables(text, "parameter", "this node", *PARAMETER[1:]) for row in one}
    assert listener["listener.limits.message_bytes"] == ("2 GiB", "512 MiB")
    assert listener["retention.high_water_percent"] == ("85", "85")
    peers = {row[0]: row[1:3] for row in rows(text, "parameter", "PET-CT 1", *PARAMETER[1:])}
    assert (peers["addresses"], peers["report_to.host"]) == (("10.1.2.0/24", "required"), ("–", "required"))
    pacs = {row[0]: row[1:3] for row in rows(text, "parameter", "pacs", *PARAMETER[1:])}
    assert (pacs["host"], pacs["timeout_s"]) == (("10.1.2.9", "required"), ("2 min", "1 min"))


def test_the_example_configuration_has_a_statement() -> None:
    assert "| parameter | pacs | default |" in statement(load(EXAMPLE))


# --- what cannot be left out ------------------------------------------------------------------------------------------


def test_web_services_are_those_of_a_user_agent() -> None:
    heads = ("DICOMweb transaction", "PS3.18", "user agent", "origin server")
    assert {row[2:] for row in rows(TEXT, *heads)} == {("Y", "N")}
    settings = parse(
        {
            "timezone": "UTC",
            "allow_unknown_peers": True,
            "destinations": {"viewer": {"url": "https://archive.example/dicom-web"}},
        }
    )
    table = {row[0]: row[1:3] for row in rows(statement(settings), "parameter", "viewer", *PARAMETER[1:])}
    assert table["url"] == ("https://archive.example/dicom-web", "required")


@pytest.mark.parametrize("status", [200, 204, 301, 400, 413, 415, 429, 500, 503, 507])
def test_http_statuses_are_judged_as_listed(status: int) -> None:
    error, permanent = judge_http(status)
    word = (error or "success").replace("-", " ")
    deeds = {row[1]: row[2] for row in rows(TEXT, "HTTP status", "meaning", "what we do")}
    assert deeds[word].startswith("done" if error is None else "failed" if permanent else "tried again")


def test_a_status_nobody_has_described_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse, "NEW", dimse.Status(0xA701, "something new"), raising=False)
    with pytest.raises(KeyError, match="something new"):
        statement()


def test_a_limit_nobody_has_described_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    wider = make_dataclass("Limits", [("width", int, 7)], bases=(elements.Limits,), frozen=True)
    monkeypatch.setattr(conformance, "Limits", wider)
    with pytest.raises(KeyError, match="width"):
        statement()


def test_a_table_nobody_asks_for_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "TABLES", {**conformance.TABLES, "spare": lambda: ""})
    with pytest.raises(KeyError, match="spare"):
        statement()


def test_every_link_of_the_contents_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert len(links) > 15
    assert set(links) <= anchors
    assert not re.findall(r"<!-- (table|contents)", TEXT)


def test_the_numbers_within_the_prose_are_those_of_the_code() -> None:
    prose = " ".join(line for line in TEXT.splitlines() if not line.startswith("|"))
    stated = (*NEVER_ANSWERED, *query.PENDING, query.WITH_FAILURES, query.NOT_WANTED, commitment.PROCESSING_FAILURE)
    assert set(re.findall(r"`([0-9A-F]{4})`", prose)) == {f"{status:04X}" for status in (0x0000, *stated)}
    assert not {f"{status:04X}" for status in NEVER_ANSWERED} & {row[0] for row in rows(TEXT, *GIVEN)}
    assert PRIVATE_SCHEME in prose


NEVER_ANSWERED = (0xB000, 0xB006, 0xB007, 0x0111)


def test_the_first_answers_agree_with_the_settings() -> None:
    usual = Settings(timezone="UTC").listener.doors[0]
    assert f"| AE title, port | `{usual.ae_titles[0]}`, {usual.port};" in TEXT
