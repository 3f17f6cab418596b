"""The configuration: what it accepts, and how it says what is wrong."""

import json
import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from config import destinations
from config import settings as models
from config.destinations import DimseDestination, WebDestination
from config.document import NotYaml, read_yaml
from config.faults import Expected
from config.load import ConfigError, load, load_rules, parse, parse_rules
from config.rules import Rule, RuleTest
from config.settings import Limits, Settings
from config.values import read_ae_title, read_duration, read_host, read_network, read_size

EXAMPLE = Path(models.__file__).with_name("node.example.yaml")
MINIMAL = {"timezone": "Europe/Berlin", "allow_unknown_peers": True}
RULE = {"name": "r", "engine": "e", "inputs": {"pet": {"modality": "PT"}}}
MODELS = [
    model
    for model in (*vars(models).values(), *vars(destinations).values(), Rule, RuleTest)
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
]


def faults_of(document: object) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(document)
    return raised.value.faults


def faults_of_text(folder: Path, text: str | bytes) -> list[str]:
    path = folder / "node.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as raised:
        load(path)
    return raised.value.faults


class TestExample:
    def test_is_valid_as_it_stands(self) -> None:
        settings = load(EXAMPLE)
        assert settings.listener.doors[0].port == 11112
        assert settings.peers[0].addresses == (ip_network("10.1.2.0/24"),)
        assert settings.destinations["pacs"].retry.give_up_after_s == 259200  # 3 × 24 × 3600
        assert settings.rules[0].inputs["ct"].pairs_with == "pet"

    def test_shows_defaults_as_they_are(self) -> None:
        shown, default = load(EXAMPLE), Settings(timezone="Europe/Berlin")
        for name in ("data", "listener", "allow_unknown_peers", "assemble", "execute", "retention"):
            assert getattr(shown, name) == getattr(default, name), name
        pacs = shown.destinations["pacs"]
        assert pacs == DimseDestination(host=pacs.host, port=pacs.port, ae_title=pacs.ae_title)

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
    def test_shows_every_key(self, model: type[BaseModel]) -> None:
        text = EXAMPLE.read_text()
        for name in model.model_fields:
            assert re.search(rf"\b{name}:", text), f"{model.__name__}.{name}"

    def test_tls_parts_are_valid_once_uncommented(self, tmp_path: Path) -> None:
        (tmp_path / "tls").mkdir()
        for name in ("node.pem", "node.key", "hospital-ca.pem", "pacs-ca.pem"):
            (tmp_path / "tls" / name).touch(mode=0o600)
        text = re.sub(
            r"(?m)^( *)# (- host: 0\.0\.0\.0|  ?(?:port|ae_titles|tls|certificate|key|client_ca|ca):|tls:)",
            r"\1\2",
            re.sub(r"(?m)^  # viewer:\n(?:  # .*\n)+", "", EXAMPLE.read_text()),
        )
        text = re.sub(r"(?m)^( *)#  ( +\S+: tls/)", r"\1  \2", text)
        (tmp_path / "node.yaml").write_text(text)
        settings = load(tmp_path / "node.yaml")
        door, pacs = settings.listener.doors[1].tls, settings.destinations["pacs"].tls
        assert door is not None and door.client_ca == tmp_path / "tls" / "hospital-ca.pem"
        assert pacs is not None and pacs.ca == tmp_path / "tls" / "pacs-ca.pem"


class TestModels:
    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
    def test_every_field_says_what_it_is(self, model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"

    def test_is_frozen(self) -> None:
        settings = parse(MINIMAL)
        with pytest.raises(ValidationError):
            settings.timezone = "UTC"

    def test_there_is_no_default_time_zone(self) -> None:
        assert len(faults_of({"allow_unknown_peers": True})) == 1
        assert faults_of({"allow_unknown_peers": True})[0].startswith("timezone: expected a value (IANA name")

    def test_survives_json(self) -> None:
        settings = load(EXAMPLE)
        assert Settings.model_validate_json(settings.model_dump_json()) == settings
        tls = {"certificate": "/a.pem", "key": "/k.pem"}
        settings = parse({**MINIMAL, "listener": {"doors": [{"tls": tls}]}})
        assert Settings.model_validate_json(settings.model_dump_json()) == settings

    def test_digest_of_rules_ignores_layout(self, tmp_path: Path) -> None:
        (tmp_path / "node.yaml").write_text(EXAMPLE.read_text().replace("# ", "#  "))
        assert load(tmp_path / "node.yaml").rules_sha256() == load(EXAMPLE).rules_sha256()
        assert parse(MINIMAL).rules_sha256() != load(EXAMPLE).rules_sha256()


class TestValues:
    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            (30, 30),
            (0.5, 0.5),
            ("10 s", 10),
            ("10s", 10),
            ("250 ms", 0.25),
            ("30 min", 1800),
            ("1.5 h", 5400),
            ("3 d", 259200),
        ],
    )
    def test_durations(self, written: object, seconds: float) -> None:
        assert read_duration(written) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "written", ["10", "1:30", "ten s", "10 m", "-5 s", True, None, [1], float("nan"), float("inf"), "1e3 s"]
    )
    def test_no_durations(self, written: object) -> None:
        with pytest.raises(Expected):
            read_duration(written)

    @pytest.mark.parametrize(
        ("written", "size"),
        [
            (4096, 4096),
            ("512 MiB", 536870912),
            ("8 GiB", 8589934592),
            ("2 GB", 2000000000),
            ("1.5 KiB", 1536),
            ("7 B", 7),
        ],
    )
    def test_sizes(self, written: object, size: int) -> None:
        assert read_size(written) == size

    @pytest.mark.parametrize("written", ["512", "512 MB2", "1 mib", 1.5, True, None, "-1 B"])
    def test_no_sizes(self, written: object) -> None:
        with pytest.raises(Expected):
            read_size(written)

    @pytest.mark.parametrize("title", ["A", "PET-CT_1", "A B", "SIXTEEN_CHARS_16", "~!@#"])
    def test_ae_titles(self, title: str) -> None:
        assert read_ae_title(title) == title

    @pytest.mark.parametrize(
        "title", ["", " ", " A", "A ", "SEVENTEEN_CHARS17", "A\\B", "A\tB", "A\nB", "ÄE", "A\x7f", 5, None]
    )
    def test_no_ae_titles(self, title: object) -> None:
        with pytest.raises(Expected):
            read_ae_title(title)

    @pytest.mark.parametrize(
        "host", ["10.1.2.3", "::1", "fe80::1", "localhost", "pacs.hospital.example", "3com.example"]
    )
    def test_hosts(self, host: str) -> None:
        assert read_host(host) == host

    @pytest.mark.parametrize("host", ["", "10.1.2.300", "10.1.2", "a b", "-a", "a..b", "a/24", "a" * 64, 10, None])
    def test_no_hosts(self, host: object) -> None:
        with pytest.raises(Expected):
            read_host(host)

    def test_networks(self) -> None:
        assert read_network("10.1.2.0/24") == ip_network("10.1.2.0/24")
        assert read_network("10.1.2.3") == ip_network("10.1.2.3/32")
        assert read_network("fd00::/8") == ip_network("fd00::/8")
        with pytest.raises(Expected, match=r"10\.1\.2\.0/24"):
            read_network("10.1.2.3/24")
        for written in ("10.1.2.0/33", "10.1", "pacs", 5, None, ""):
            with pytest.raises(Expected):
                read_network(written)


class TestFaults:
    def test_all_come_at_once(self) -> None:
        faults = faults_of(
            {
                "timezone": "Europe/Berln",
                "listner": {},
                "listener": {"doors": [{"port": 70000}, {"prot": 1, "port": 104}]},
                "peers": [{"name": "a", "ae_title": "TOO_LONG_AE_TITLE", "addresses": ["10.0.0.300"]}],
                "destinations": {"pacs": {"host": "h", "port": 104, "ae_title": "P", "proof": "maybe"}},
                "retention": {"high_water_percent": 60, "low_water_percent": 70},
                "rules": [{**RULE, "send_to": ["pcas"]}, {**RULE, "when": {"trcer": "FDG"}}],
            }
        )
        starts = {
            "timezone: expected an IANA time zone such as Europe/Berlin, got 'Europe/Berln'; did you mean 'Europe/Berl",
            "listner: expected one of allow_unknown_peers, ",
            "listener.doors.0.port: expected at most 65535, got 70000",
            "listener.doors.1.prot: expected one of ae_titles, host, port, tls, got the unknown key 'prot'; did you me",
            "peers.0.ae_title: expected an AE title: ",
            "peers.0.addresses.0: expected an address range such as 10.1.2.0/24",
            "destinations.pacs.proof: expected one of 'accepted', 'committed' or 'seen', got 'maybe'",
            "retention.low_water_percent: expected less than high_water_percent (60), got 70",
            "rules.0.send_to.0: expected a destination (pacs), got 'pcas'; did you mean 'pacs'?",
            "rules.1.when.trcer: expected one of the known keys, got the unknown key 'trcer'; did you mean 'tracer'?",
            "rules.1.name: expected a name of its own, got 'r' of entry 0 again",
        }
        assert {start for start in starts if not any(fault.startswith(start) for fault in faults)} == set()
        assert len(faults) == len(starts)

    @pytest.mark.parametrize("document", [None, [], "text", 5, True, {"peers": None}, {1: 2}])
    def test_nonsense_is_a_fault(self, document: object) -> None:
        assert faults_of(document)

    def test_numbers_too_large_to_print(self) -> None:
        huge = 10**5000  # Python refuses to write more than 4300 digits
        assert faults_of({**MINIMAL, "execute": {"workers": huge}}) == [
            "execute.workers: expected at most 64, got a number too large to use"
        ]
        assert faults_of({**MINIMAL, "rules": [{**RULE, "parameters": {"x": huge}}]}) == [
            "rules.0.parameters: expected finite numbers and readable text only, got {x: a number too large to use}"
        ]

    @pytest.mark.parametrize("peers", [{}, {"peers": []}, {"allow_unknown_peers": False}])
    def test_somebody_must_be_able_to_send(self, peers: dict[str, object]) -> None:
        assert faults_of({"timezone": "UTC", **peers}) == [
            "peers: expected a peer, or allow_unknown_peers: yes, got none: nobody could send"
        ]

    @pytest.mark.parametrize(
        ("limits", "fault"),
        [
            (
                {"associations": 5, "associations_per_peer": 6},
                "limits.associations_per_peer: expected at most associations",
            ),
            ({"pdu_bytes": "2 MiB"}, "limits.pdu_bytes: expected at most pdu_bytes_max"),
            ({"pdu_bytes_max": "1 GiB"}, "limits.pdu_bytes_max: expected at most message_bytes"),
            ({"read_s": "11 min"}, "limits.read_s: expected at most message_s"),
            ({"message_s": "3 h"}, "limits.message_s: expected at most association_s"),
            ({"pdu_bytes": 0}, "limits.pdu_bytes: expected at least 4096, got 0"),
            ({"handshake_s": 0}, "limits.handshake_s: expected more than 0"),
            ({"handshake_s": "400 d"}, "limits.handshake_s: expected at most 2592000"),  # 30 × 86400
            ({"associations": True}, "limits.associations: expected a whole number, got yes (a yes/no value)"),
            ({"associations": "5"}, "limits.associations: expected a whole number, got '5'"),
            ({"free_bytes_min": 0}, "limits.free_bytes_min: expected at least 1"),
        ],
    )
    def test_limits_are_sensible(self, limits: dict[str, object], fault: str) -> None:
        (found,) = faults_of({**MINIMAL, "listener": {"limits": limits}})
        assert found.startswith(f"listener.{fault}")

    @pytest.mark.parametrize(
        ("first", "second", "collide"),
        [
            ({"port": 104}, {"port": 104}, True),
            ({"port": 104}, {"port": 105}, False),
            ({"host": "10.0.0.1", "port": 104}, {"port": 104}, True),
            ({"host": "10.0.0.1", "port": 104}, {"host": "::", "port": 104}, True),
            ({"host": "10.0.0.1", "port": 104}, {"host": "10.0.0.2", "port": 104}, False),
            ({"host": "10.0.0.1"}, {"host": "10.0.0.2", "tls": {"certificate": "c", "key": "k"}}, True),
            ({}, {"port": 11112}, True),
        ],
    )
    def test_doors_on_one_port(self, first: dict[str, object], second: dict[str, object], collide: bool) -> None:
        document = {**MINIMAL, "listener": {"doors": [first, second]}}
        if not collide:
            assert len(parse(document).listener.doors) == 2
            return
        (fault,) = faults_of(document)
        assert re.fullmatch(r"listener\.doors\.1\.port: expected a port of its own, got \d+ of door 0 again", fault)

    def test_names_are_given_once(self) -> None:
        peer = {"name": "a", "ae_title": "A", "addresses": ["10.0.0.0/8"]}
        (fault,) = faults_of({"timezone": "UTC", "peers": [peer, {**peer, "name": "b"}, {**peer, "name": "A"}]})
        assert fault == "peers.2.name: expected a name of its own, got 'A' of entry 0 again"

    def test_a_certificate_needs_its_key(self) -> None:
        destination = {"host": "h", "port": 1, "ae_title": "A", "tls": {"ca": "ca", "certificate": "c"}}
        (fault,) = faults_of({**MINIMAL, "destinations": {"d": destination}})
        assert fault == "destinations.d.tls.key: expected the key that belongs to the certificate, got nothing"

    def test_wrong_values_are_not_spilled(self) -> None:
        pasted = "-----BEGIN PRIVATE KEY-----" + "x" * 1000
        (fault,) = faults_of({**MINIMAL, "data": pasted + "\n"})
        assert len(fault) < 120


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("yes", True), ("No", False), ("on", True), ("TRUE", True), ("~", None), ("", None), ("null", None),
            ("'yes'", "yes"), ("y", "y"), ("12", 12), ("-3", -3), ("0", 0), ("1.5", 1.5), ("1e3", 1000.0),
            ("2.5E-2", 0.025),
            ("0104", "0104"), ("0x10", "0x10"), ("0o7", "0o7"), ("1_000", "1_000"), ("1:30", "1:30"), (".inf", ".inf"),
            (".nan", ".nan"), ("2026-03-02", "2026-03-02"), ("9" * 5000, "9" * 5000), ("=", "="), ("<<", "<<"),
        ],
    )  # fmt: skip
    def test_scalars(self, text: str, value: object) -> None:
        content = read_yaml(f"key: {text}".encode()).content
        assert content == {"key": value}
        assert type(content["key"]) is type(value)

    def test_keys_are_text(self) -> None:
        assert read_yaml(b"no: 1\n5: 2\n~: 3\n<<: 4").content == {"no": 1, "5": 2, "~": 3, "<<": 4}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"a: [1,\nb: 2", "line 2, column 5"),
            (b"a: 1\n\tb: 2", "spaces, not with tabs"),
            (b"a: 1\nb: &x 2", "line 2, column 4: expected no anchors"),
            (b"a: *x", "line 1, column 4: expected no anchors"),
            (b"a: !!python/object/apply:os.system [ls]", "line 1, column 4: expected no anchors"),
            (b"a: !!binary xxxx", "line 1, column 4: expected no anchors"),
            (b"&k a: 1", "line 1, column 1: expected a plain word as key"),
            (b"? [a]\n: 1", "expected a plain word as key"),
            (b"a: 1\n---\nb: 2", "line 2, column 1: expected one document"),
            (b"a: \x07", "control character U+0007"),
            (b"a: \xff", "expected text in UTF-8, got byte 0xff at offset 3"),
            (b'a: "\\UFFFFFFFF"', "expected text, got an escape"),
            (b"[" * 50 + b"]" * 50, "at most 20 levels"),
            (b"#" * (1024 * 1024 + 1), "expected at most 1048576 bytes"),
        ],
    )
    def test_faults_of_syntax(self, tmp_path: Path, text: bytes, words: str) -> None:
        with pytest.raises(NotYaml, match=re.escape(words)):
            read_yaml(text)
        (fault,) = faults_of_text(tmp_path, text)
        assert words in fault
        assert str(tmp_path / "node.yaml") in fault

    def test_repeated_keys_are_faults_beside_others(self, tmp_path: Path) -> None:
        text = "timezone: UTC\nallow_unknown_peers: yes\nexecute:\n  workers: 1\n  workers: 2\ntimezone: UTC\nx: 1\n"
        assert [fault.split("expected")[0] + fault.split("(")[-1] for fault in faults_of_text(tmp_path, text)] == [
            "timezone: line 1)",
            "execute.workers: line 4)",
            "x: line 7)",
        ]

    def test_faults_name_their_lines(self, tmp_path: Path) -> None:
        text = "# words\ntimezone: UTC\nallow_unknown_peers: on\nlistener:\n doors:\n  - port: 11112\n  - port: 0104\n"
        assert faults_of_text(tmp_path, text) == ["listener.doors.1.port: expected a whole number, got '0104' (line 7)"]

    def test_a_byte_order_mark_is_no_fault(self) -> None:
        assert read_yaml("\ufeffa: ü".encode()).content == {"a": "ü"}

    @pytest.mark.parametrize("text", ["", "# nothing\n", "---"])
    def test_an_empty_file(self, tmp_path: Path, text: str) -> None:
        assert faults_of_text(tmp_path, text) == [
            "configuration: expected a mapping (lines of `name: value`), got nothing (line 1)"
        ]

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="expected a readable file"):
            load(tmp_path / "absent.yaml")
        with pytest.raises(ConfigError, match="expected a readable file"):
            load(tmp_path)


def key_of(settings: Settings) -> Path:
    tls = settings.listener.doors[0].tls
    assert tls is not None
    return tls.key


class TestTlsFiles:
    TEXT = """
timezone: UTC
allow_unknown_peers: yes
listener: {doors: [{port: 2762, tls: {certificate: a.pem, key: KEY}}]}
destinations: {d: {host: h, port: 1, ae_title: A, tls: {ca: sub/ca.pem}}}
"""

    def write(self, folder: Path, key: str = "k.pem") -> Path:
        (folder / "sub").mkdir()
        for name in ("a.pem", "sub/ca.pem"):
            (folder / name).write_text("")
        (folder / "k.pem").touch(mode=0o600)
        (folder / "node.yaml").write_text(self.TEXT.replace("KEY", key))
        return folder / "node.yaml"

    def test_are_relative_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.write(tmp_path)
        monkeypatch.chdir(tmp_path / "sub")
        settings = load(Path("../node.yaml"))
        assert key_of(settings).samefile(tmp_path / "k.pem")
        tls = settings.destinations["d"].tls
        assert tls is not None and tls.ca.samefile(tmp_path / "sub" / "ca.pem")
        assert settings.data == Path("tracerd-data")
        assert key_of(load(path)) == tmp_path / "k.pem"

    def test_may_be_absolute(self, tmp_path: Path) -> None:
        assert key_of(load(self.write(tmp_path, str(tmp_path / "k.pem")))) == tmp_path / "k.pem"

    def test_must_exist(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "absent.pem")
        (tmp_path / "sub" / "ca.pem").unlink()
        (tmp_path / "a.pem").unlink()
        (tmp_path / "a.pem").mkdir()
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert raised.value.faults == [
            f"listener.doors.0.tls.certificate: expected a file that this user may read, got {tmp_path}/a.pem (line 4)",
            f"listener.doors.0.tls.key: expected a file, got {tmp_path}/absent.pem: No such file or directory (line 4)",
            f"destinations.d.tls.ca: expected a file, got {tmp_path}/sub/ca.pem: No such file or directory (line 5)",
        ]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
    def test_a_key_is_its_owners_alone(self, tmp_path: Path, mode: int) -> None:
        path = self.write(tmp_path)
        (tmp_path / "k.pem").chmod(mode)
        with pytest.raises(ConfigError) as raised:
            load(path)
        (fault,) = raised.value.faults
        assert fault.startswith("listener.doors.0.tls.key: expected a file that only its owner may read (chmod 600), ")
        assert fault.endswith(f"got {tmp_path}/k.pem with mode {mode:04o} (line 4)")

    def test_certificates_may_be_public(self, tmp_path: Path) -> None:
        path = self.write(tmp_path)
        (tmp_path / "a.pem").chmod(0o644)
        assert load(path).listener.doors[0].tls is not None

    def test_odd_names(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, '"k\\0.pem"')
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert any("listener.doors.0.tls.key" in fault for fault in raised.value.faults)


class TestRuleFiles:
    def test_a_list_or_a_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "rules.json").write_text(json.dumps([RULE]))
        (rule,) = load_rules(tmp_path / "rules.json", destinations=[])
        assert rule.name == "r"
        assert load_rules(EXAMPLE, destinations=["pacs"]) == load(EXAMPLE).rules

    def test_what_is_kept_reads_back(self) -> None:
        settings = load(EXAMPLE)
        assert parse_rules(settings.rules_text(), destinations=["pacs"]) == settings.rules

    def test_faults_have_lines(self) -> None:
        text = "- name: a\n  engine: e\n  inputs: {pet: {modality: 5}}\n  send_to: [x]\n"
        with pytest.raises(ConfigError) as raised:
            parse_rules(text, destinations=["pacs"])
        assert raised.value.faults == [
            "rules.0.inputs.pet.modality: expected text (put it in quotes), got 5 (line 3)",
            "rules.0.send_to.0: expected a destination (pacs), got 'x' (line 4)",
        ]

    def test_no_rules(self) -> None:
        with pytest.raises(ConfigError):
            parse_rules("a: 1", destinations=[])
        assert parse_rules("[]", destinations=[]) == ()


def test_defaults_are_the_documented_ones() -> None:
    limits = Limits()
    assert (limits.associations, limits.associations_per_peer) == (50, 10)
    assert (limits.pdu_bytes, limits.pdu_bytes_max, limits.message_bytes) == (131072, 1048576, 536870912)
    assert (limits.handshake_s, limits.read_s, limits.message_s, limits.association_s) == (10, 30, 600, 7200)
    assert limits.free_bytes_min == 1073741824
    settings = parse(MINIMAL)
    assert (settings.assemble.quiet_s, settings.assemble.quiet_other_s, settings.assemble.maximum_wait_s) == (
        10,
        30,
        1800,
    )
    assert (settings.execute.workers, settings.execute.attempts, settings.execute.interruptions) == (1, 3, 5)
    assert settings.execute.memory_bytes == 8589934592  # 8 × 2^30
    assert (settings.retention.high_water_percent, settings.retention.low_water_percent) == (85, 75)


PACS = {"host": "h", "port": 104, "ae_title": "P"}
WEB = {"url": "https://archive.example/dicom-web/"}


class TestDestinations:
    def test_a_url_makes_it_dicomweb(self) -> None:
        settings = parse({**MINIMAL, "destinations": {"pacs": PACS, "viewer": WEB}})
        pacs, viewer = settings.destinations["pacs"], settings.destinations["viewer"]
        assert isinstance(pacs, DimseDestination) and pacs.transfer_syntaxes == ("explicit", "implicit")
        assert isinstance(viewer, WebDestination) and viewer.url == "https://archive.example/dicom-web"
        assert Settings.model_validate_json(settings.model_dump_json()) == settings

    def test_the_web_example_is_valid_once_uncommented(self, tmp_path: Path) -> None:
        (tmp_path / "tls").mkdir()
        (tmp_path / "secrets").mkdir()
        (tmp_path / "tls" / "archive-ca.pem").touch()
        for name in ("token", "password"):
            (tmp_path / "secrets" / name).touch(mode=0o600)
        lines = EXAMPLE.read_text().splitlines()
        first = lines.index("  # viewer:")
        block = [line.replace("  # ", "  ", 1) for line in lines[first:] if line.startswith("  # ")]
        block = [line for line in block if "token_file" not in line]
        (tmp_path / "node.yaml").write_text("\n".join([*lines[:first], *block, *lines[first + 8 :]]))
        viewer = load(tmp_path / "node.yaml").destinations["viewer"]
        assert isinstance(viewer, WebDestination)
        assert viewer.password_file == tmp_path / "secrets" / "password" and viewer.proving.verify == "pixels"

    @pytest.mark.parametrize(
        ("entry", "fault"),
        [
            ({**WEB, "proof": "committed"}, "d.proof: expected one of 'accepted' or 'seen', got 'committed'"),
            ({**WEB, "port": 104}, "d.port: expected one of fall_back, "),
            (
                {**PACS, "proof": "committed", "proving": {"ask_commitment": False}},
                "d.proving.ask_commitment: expected",
            ),
            ({**PACS, "objects": []}, "d.objects: expected at least 1 entry, got a list of 0"),
            ({**PACS, "objects": ["segs"]}, "d.objects.0: expected one of 'seg', 'labelmap', "),
            ({**PACS, "fall_back": {"seg": "seg"}}, "d.fall_back.seg: expected replacements that end, got a circle"),
            ({**PACS, "transfer_syntaxes": ["jpeg"]}, "d.transfer_syntaxes.0: expected one of 'explicit', "),
            (
                {**WEB, "user": "me"},
                "d.password_file: expected the password_file that belongs to the user, got nothing",
            ),
            (
                {**WEB, "user": "a:b", "password_file": "p"},
                "d.user: expected a name of 1 to 64 characters without a colon",
            ),
            (
                {**WEB, "user": "a", "password_file": "p", "token_file": "t"},
                "d.user: expected either a token or a user",
            ),
            (
                {"url": "http://archive/x", "token_file": "t"},
                "d.url: expected https where a token or a password is sent",
            ),
            ({"url": "http://localhost.example/x", "token_file": "t"}, "d.url: expected https"),
            ({"url": "http://a/x", "tls": {"ca": "c"}}, "d.tls: expected no tls, or an https url, got an http url"),
            ({"url": "ftp://a/x"}, "d.url: expected a web address such as"),
            ({"url": "https://user:secret@a/x"}, "d.url: expected a web address such as"),
            ({"url": "https://a/x?y=1"}, "d.url: expected a web address such as"),
            ({"url": "https://a:0/x"}, "d.url: expected a web address such as"),
            ({"url": "https:///x"}, "d.url: expected a web address such as"),
            ({"url": 5}, "d.url: expected a web address such as"),
        ],
    )
    def test_faults(self, entry: dict[str, object], fault: str) -> None:
        (found,) = faults_of({**MINIMAL, "destinations": {"d": entry}})
        assert found.startswith(f"destinations.{fault}"), found

    @pytest.mark.parametrize("name", ["dimse", "web"])
    def test_a_destination_may_be_called_like_a_tag(self, name: str) -> None:
        (fault,) = faults_of({**MINIMAL, "destinations": {name: {**PACS, "port": 0}}})
        assert fault.startswith(f"destinations.{name}.port: expected at least 1, got 0")

    def test_a_misspelt_url_is_taken_for_one(self) -> None:
        missing, misspelt = faults_of({**MINIMAL, "destinations": {"d": {"urll": "https://a/x", "proof": "seen"}}})
        assert missing.startswith("destinations.d.url: expected a value")
        assert misspelt.startswith("destinations.d.urll: ") and "did you mean 'url'?" in misspelt

    def test_credentials_may_go_in_clear_on_this_machine(self) -> None:
        parse({**MINIMAL, "destinations": {"d": {"url": "http://127.0.0.1:8042/x", "token_file": "t"}}})
        parse({**MINIMAL, "destinations": {"d": {"url": "http://[::1]/x", "token_file": "t"}}})

    def test_a_token_is_its_owners_alone(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("x")
        (tmp_path / "token").chmod(0o640)
        (tmp_path / "node.yaml").write_text(
            "timezone: UTC\nallow_unknown_peers: yes\ndestinations: {d: {url: https://a/x, token_file: token}}\n"
        )
        with pytest.raises(ConfigError) as raised:
            load(tmp_path / "node.yaml")
        (fault,) = raised.value.faults
        assert fault.startswith("destinations.d.token_file: expected a file that only its owner may read (chmod 600)")
