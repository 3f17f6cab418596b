"""A configuration file → Settings, or every fault of it at once."""

from __future__ import annotations

import contextlib
import copy
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from config.document import Document, NotYaml, read_yaml
from config.faults import Fault, Steps, did_you_mean, spell, translate
from config.rules import Rule, RuleFile
from config.settings import ANY_HOST, DICOM_PORT, Settings

OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO
TLS_FILES = ("certificate", "key", "ca", "client_ca")
LOGIN_FILES = ("token_file", "password_file")
SECRETS = {"key", *LOGIN_FILES}
EVERY_CARD = (ANY_HOST, "::")

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(Exception):
    """The configuration cannot be used; `faults` lists everything that is wrong with it, one sentence each."""

    code = "config"
    hint = "Correct the file; `tracerd check --config FILE` lists every fault."

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(path: Path) -> Settings:
    """Read the configuration of a node.

    Relative names of TLS files, tokens and passwords are relative to the folder of `path`; the files must exist, and a
    key or another secret must be its owner's alone. `data` is left as it is: relative to the folder the node is started
    in.

    Raises
    ------
    ConfigError
        Every fault of the file, each with its line.
    """
    document = _read(_bytes_of(path), str(path))
    content, file_faults = place_files(document.content, path.absolute().parent)
    return _check(Settings, content, [*document.faults, *contradictions(content), *file_faults], document)


def parse(document: object) -> Settings:
    """Check a configuration that was read already; no file is looked at.

    document : what a YAML or JSON reader makes of a configuration

    Raises
    ------
    ConfigError
        Every fault of the document.
    """
    return _check(Settings, document, contradictions(document))


def load_rules(path: Path, *, destinations: Collection[str]) -> tuple[Rule, ...]:
    """Read a file of rules: a list of them, or a mapping that holds them under `rules:`, such as a configuration.

    destinations : names that `send_to` may use

    Raises
    ------
    ConfigError
        Every fault of the rules, each with its line.
    """
    return _rules_of(_read(_bytes_of(path), str(path)), destinations)


def readable_rules(path: Path) -> dict[int, Rule]:
    """Position → rule, for the rules of a configuration that can be read by themselves, whatever is wrong elsewhere.

    Raises
    ------
    ConfigError
        The file is not YAML.
    """
    content = _read(_bytes_of(path), str(path)).content
    rules = content.get("rules") if isinstance(content, dict) else None
    found = {}
    for number, document in enumerate(rules if isinstance(rules, list) else []):
        with contextlib.suppress(ValidationError):
            found[number] = Rule.model_validate(document)
    return found


def parse_rules(text: str, *, destinations: Collection[str]) -> tuple[Rule, ...]:
    """Check the text of a rule set, as a file holds it or as `config.rules.rules_text` writes it.

    Raises
    ------
    ConfigError
        Every fault of the rules, each with its line.
    """
    return _rules_of(_read(text.encode(errors="surrogatepass"), "rules"), destinations)


def _rules_of(document: Document, destinations: Collection[str]) -> tuple[Rule, ...]:
    if not isinstance(document.content, dict):
        document = document.below("rules")
    rules = document.content.get("rules")
    faults = [*_repeated_names(rules, "rules"), *_unknown_destinations(rules, destinations, "rules")]
    return _check(RuleFile, {"rules": rules}, [*document.faults, *faults], document).rules


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: expected a readable file, got the error {error}"]) from error


def _read(data: bytes, name: str) -> Document:
    try:
        return read_yaml(data)
    except NotYaml as error:
        raise ConfigError([f"{name}: {error}"]) from error


def _check(model: type[Model], content: object, others: list[Fault], document: Document | None = None) -> Model:
    """The model of the content, if neither it nor the other checks found a fault."""
    try:
        checked = model.model_validate(content)
    except ValidationError as error:
        raise _error([*translate(error, model), *others], document) from error
    if others:
        raise _error(others, document)
    return checked


def _error(faults: list[Fault], document: Document | None) -> ConfigError:
    """All faults, in the order of the file's lines where there is a file."""
    if document is None:
        return ConfigError([str(fault) for fault in faults])
    numbered = sorted(((document.line(fault.path), str(fault)) for fault in faults), key=lambda entry: entry[0])
    return ConfigError([f"{words} (line {line})" for line, words in numbered])


def contradictions(document: object) -> list[Fault]:
    """Faults that need two places of a configuration to see.

    They are looked for in the document itself, not in a `Settings`, so that they are found beside faults of single
    values; what has the wrong type is passed over, since it is reported on its own.
    """
    if not isinstance(document, Mapping):
        return []
    destinations = document.get("destinations")
    names = list(destinations) if isinstance(destinations, Mapping) else []
    faults = [
        *_nobody_may_send(document),
        *_colliding_doors(document),
        *_repeated_names(document.get("peers"), "peers"),
        *_repeated_names(document.get("rules"), "rules"),
    ]
    return [*faults, *_unknown_destinations(document.get("rules"), names, "rules")]


def _mappings(content: object) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """The entries of a list that are mappings, with their places."""
    for i, entry in enumerate(content if isinstance(content, list | tuple) else ()):
        if isinstance(entry, Mapping):
            yield i, entry


def _nobody_may_send(document: Mapping[Any, Any]) -> Iterator[Fault]:
    if document.get("peers", []) == [] and document.get("allow_unknown_peers", False) is False:
        yield Fault(("peers",), "expected a peer, or allow_unknown_peers: yes, got none: nobody could send")


def _colliding_doors(document: Mapping[Any, Any]) -> Iterator[Fault]:
    """Doors that cannot both be opened: one port may serve several network cards, but not plain and TLS (B.12)."""
    listener = document.get("listener")
    earlier: list[tuple[int, object, object, bool]] = []
    for i, door in _mappings(listener.get("doors") if isinstance(listener, Mapping) else None):
        port, host, encrypted = door.get("port", DICOM_PORT), door.get("host", ANY_HOST), door.get("tls") is not None
        for k, other_port, other_host, other_encrypted in earlier:
            same_card = host == other_host or host in EVERY_CARD or other_host in EVERY_CARD
            if port == other_port and (same_card or encrypted != other_encrypted):
                words = f"expected a port of its own, got {spell(port)} of door {k} again"
                yield Fault(("listener", "doors", i, "port"), words)
                break
        earlier.append((i, port, host, encrypted))


def _repeated_names(content: object, *top: str) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for i, entry in _mappings(content):
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        first = seen.setdefault(name.casefold(), i)
        if first != i:
            yield Fault((*top, i, "name"), f"expected a name of its own, got {spell(name)} of entry {first} again")


def _unknown_destinations(content: object, destinations: Collection[str], *top: str) -> Iterator[Fault]:
    known = ", ".join(str(name) for name in destinations) or "none is configured"
    for i, rule in _mappings(content):
        names = rule.get("send_to")
        for k, name in enumerate(names if isinstance(names, list | tuple) else ()):
            if isinstance(name, str) and name not in destinations:
                words = f"expected a destination ({known}), got {spell(name)}{did_you_mean(name, destinations)}"
                yield Fault((*top, i, "send_to", k), words)


def place_files(document: object, folder: Path) -> tuple[object, list[Fault]]:
    """Put `folder` before the relative names of TLS files, tokens and passwords, and look at the files.

    Returns
    -------
    the document with absolute names, and the faults: a file that cannot be read, a secret that others may read
    """
    placed = copy.deepcopy(document)
    faults: list[Fault] = []
    owners: list[tuple[Steps, dict[str, Any], tuple[str, ...]]]
    owners = [(top, tls, TLS_FILES) for top, tls in _tls_of(placed)]
    owners += [(top, entry, LOGIN_FILES) for top, entry in _destinations_of(placed)]
    for top, owner, names in owners:
        for name in names:
            if isinstance(owner.get(name), str) and owner[name]:
                owner[name] = str(folder / owner[name])
                found = _file_faults(Path(owner[name]), secret=name in SECRETS)
                faults += [Fault((*top, name), words) for words in found]
    return placed, faults


def _destinations_of(document: object) -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Every destination of a document, with its path."""
    destinations = document.get("destinations") if isinstance(document, dict) else None
    for name, entry in (destinations if isinstance(destinations, dict) else {}).items():
        if isinstance(entry, dict):
            yield ("destinations", name), entry


def _tls_of(document: object) -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Every `tls:` of a document, with its path."""
    content = document if isinstance(document, dict) else {}
    listener = content.get("listener")
    doors = listener.get("doors") if isinstance(listener, dict) else None
    owners: list[tuple[Steps, Mapping[Any, Any]]] = [(("listener", "doors", i), door) for i, door in _mappings(doors)]
    owners += _destinations_of(content)
    for i, peer in _mappings(content.get("peers")):
        if isinstance(peer.get("report_to"), dict):
            owners.append((("peers", i, "report_to"), peer["report_to"]))
    for path, owner in owners:
        if isinstance(owner.get("tls"), dict):
            yield (*path, "tls"), owner["tls"]


def _file_faults(path: Path, *, secret: bool) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        yield f"expected a file, got {path}: {getattr(error, 'strerror', None) or error}"
        return
    if not stat.S_ISREG(mode) or not os.access(path, os.R_OK):
        yield f"expected a file that this user may read, got {path}"
    if secret and mode & OTHERS_MAY:
        yield f"expected a file that only its owner may read (chmod 600), got {path} with mode {stat.S_IMODE(mode):04o}"
