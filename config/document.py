"""YAML text → plain values with the line of each, read without YAML's traps.

Keys are text (a destination may be called `no`), numbers are decimal (`0104` is not 68, `1:30` not 90: both are text),
a key that stands twice is a fault, and there are no anchors, aliases or tags: what is written is what is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from config.faults import Fault, Steps

TEXT_BYTES_MAX = 1024 * 1024
"""Longest document [bytes]; hundreds of rules fit."""
DEPTH_MAX = 20
"""Deepest nesting; the grammar itself needs eight, parameters of an engine may need more."""


def _finite(text: str) -> float | str:
    """`1e999` is no number a machine can hold; it stays text."""
    number = float(text)
    return number if math.isfinite(number) else text


_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = (
    (re.compile(r"(?:~|null)?", re.IGNORECASE), lambda _: None),
    (re.compile(r"yes|true|on", re.IGNORECASE), lambda _: True),
    (re.compile(r"no|false|off", re.IGNORECASE), lambda _: False),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,299})"), int),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,299})(?:\.[0-9]{1,99})?(?:[eE][-+]?[0-9]{1,3})?"), _finite),
)
"""What an unquoted word is, first match wins; everything else is text."""


class NotYaml(Exception):
    """The text is no YAML document we read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says.

    content : None, bool, int, float, str, list and dict with text keys
    lines : line of every value, from 1, by its path
    faults : keys that stand twice; the first value is kept
    """

    content: Any
    lines: dict[Steps, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, path: Steps) -> int:
        """Line of a value, or of what it stands in where the value itself is missing."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def below(self, key: str) -> Document:
        """The same document as the value of a key."""
        lines = {(key, *path): line for path, line in self.lines.items()}
        return Document({key: self.content}, lines, [Fault((key, *each.path), each.words) for each in self.faults])


def read_yaml(data: bytes) -> Document:
    """Read one YAML document.

    Raises
    ------
    NotYaml
        Not UTF-8, not YAML, several documents, too long, too deep, or with anchors, aliases or tags.
    """
    if len(data) > TEXT_BYTES_MAX:
        raise NotYaml(f"expected at most {TEXT_BYTES_MAX} bytes, got {len(data)}")
    try:
        return _Reader(yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)).document()
    except UnicodeDecodeError as error:
        raise NotYaml(f"expected text in UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}") from error
    except yaml.reader.ReaderError as error:
        raise NotYaml(
            f"expected text, got control character U+{error.character:04X} at offset {error.position}"
        ) from error
    except yaml.MarkedYAMLError as error:
        raise NotYaml(_explain(error)) from error
    except (ValueError, OverflowError) as error:
        # PyYAML passes "\UFFFFFFFF" to chr() unchecked.
        raise NotYaml("expected text, got an escape that is no character") from error


def _explain(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    hint = "; YAML is indented with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
    return f"{where}expected YAML, got a fault: {error.problem or error.context}{hint}"


@dataclass(slots=True)
class _Reader:
    """Builds the values of one document from PyYAML's events."""

    events: Iterator[yaml.Event]
    lines: dict[Steps, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def document(self) -> Document:
        content = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse(event, "one document in the file, without a second `---`")
                content = self.value(next(self.events), ())
        return Document(content, self.lines, self.faults)

    def value(self, event: yaml.Event, path: Steps) -> Any:
        self.lines[path] = _line(event)
        if _is_indirect(event):
            _refuse(event, "no anchors (&name), aliases (*name) or tags (!name): write the value out")
        if len(path) > DEPTH_MAX:
            _refuse(event, f"at most {DEPTH_MAX} levels")
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event.value) if event.implicit[0] else event.value
        return self._sequence(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _sequence(self, path: Steps) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self.value(event, (*path, len(values))))
        return values

    def _mapping(self, path: Steps) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event)
            here = (*path, key)
            if key in values:
                self.faults.append(Fault(here, f"expected every key once, got it again in line {_line(event)}"))
            reader = _Reader(self.events) if key in values else self
            values.setdefault(key, reader.value(next(self.events), here))
        return values

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent) or _is_indirect(event):
            _refuse(event, "a plain word as key")
        return str(event.value)


def _plain(text: str) -> Any:
    return next((read(text) for pattern, read in _PLAIN if pattern.fullmatch(text)), text)


def _is_indirect(event: yaml.Event) -> bool:
    """An alias, or a value that carries an anchor or a tag."""
    return isinstance(event, yaml.NodeEvent) and (event.anchor is not None or getattr(event, "tag", None) is not None)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _refuse(event: yaml.Event, expected: str) -> NoReturn:
    column = event.start_mark.column + 1 if event.start_mark is not None else 1
    raise NotYaml(f"line {_line(event)}, column {column}: expected {expected}")
