"""How a fault of a configuration is worded: `path.to.key: expected …, got …`.

Readers of single values raise `Expected("a port from 1 to 65535")`; what they got is added here. Checks that see
several values at once raise the whole sentence with `refuse`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Steps = tuple[str | int, ...]
"""Where a value stands in the document: keys and list indices from the top."""

TEXT_SHOWN_MAX = 60
"""Characters of a wrong value that a fault repeats: enough to find it, too few to spill a pasted key."""

SMALL = 3
"""Entries of a mapping that is repeated in full."""
NAMES_SHOWN_MAX = 12
"""Names that may be listed in a fault; more drown it."""

WHOLE_SENTENCE = "whole_sentence"

EXPECTED = {
    "bool_type": "yes or no (without quotes)",
    "dict_type": "a mapping (lines of `name: value`)",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "model_type": "a mapping (lines of `name: value`)",
    "string_type": "text (put it in quotes)",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entry",
    "tuple_type": "a list (lines of `- value`, or [a, b])",
    "value_error": "{error}",
}
"""What was expected, by pydantic's error type."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where, in words."""

    path: Steps
    words: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.words}"


class Expected(ValueError):
    """What the reader of one value expected, in the words that follow "expected" in the fault."""


def dotted(path: Steps) -> str:
    """`("rules", 0, "send_to")` → `rules.0.send_to`; the top itself is `configuration`."""
    return ".".join(str(step) for step in path) or "configuration"


def spell(value: object) -> str:
    """Name a wrong value as its author would: the beginning of long text, of structures only small flat ones."""
    words = f"a {type(value).__name__}"
    match value:
        case None:
            words = "nothing"
        case bool():
            words = f"{'yes' if value else 'no'} (a yes/no value)"
        case int() if value.bit_length() > 63:
            words = "a number too large to use"
        case int() | float():
            words = str(value)
        case str():
            words = repr(value if len(value) <= TEXT_SHOWN_MAX else value[: TEXT_SHOWN_MAX - 1] + "…")
        case Mapping() if 0 < len(value) <= SMALL and not any(
            isinstance(each, Mapping | list) for each in value.values()
        ):
            words = "{" + ", ".join(f"{key}: {spell(each)}" for key, each in value.items()) + "}"
        case Mapping():
            words = "a mapping"
        case list() | tuple():
            words = f"a list of {len(value)}"
    return words


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """`; did you mean 'port'?` where a known word is near, else nothing."""
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown_key(key: object, known: Iterable[str]) -> str:
    """The sentence about a key that does not belong here."""
    names = sorted(known)
    hint = did_you_mean(key, names)
    listed = ", ".join(names) if not hint or len(names) <= NAMES_SHOWN_MAX else "the known keys"
    return f"expected one of {listed}, got the unknown key {spell(str(key))}{hint}"


def refuse(faults: Iterable[Fault]) -> None:
    """Raise the faults from inside a pydantic validator, each with its path below the validated value.

    Raises
    ------
    pydantic.ValidationError
        With one entry per fault; nothing is raised when there is none.
    """
    lines = [
        InitErrorDetails(
            type=PydanticCustomError(WHOLE_SENTENCE, "{words}", {"words": fault.words}), loc=fault.path, input=None
        )
        for fault in faults
    ]
    if lines:
        raise ValidationError.from_exception_data("configuration", lines)


def ascending(model: BaseModel, *names: str) -> list[Fault]:
    """Faults of fields that must not become smaller in this order."""
    values = [getattr(model, name) for name in names]
    return [
        Fault(
            (names[i],), f"expected at most {names[i + 1]}, got {values[i]:g} where {names[i + 1]} is {values[i + 1]:g}"
        )
        for i in range(len(names) - 1)
        if values[i] > values[i + 1]
    ]


def translate(error: ValidationError, root: Any) -> Iterator[Fault]:
    """Put pydantic's findings into words.

    root : the type that was validated; its field names serve the did-you-mean of unknown keys
    """
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]:
            continue  # pydantic counts valid entries only; the wrong ones have faults of their own
        steps = details["loc"][:-1] if details["loc"][-1:] == ("[key]",) else details["loc"]
        yield Fault(_without_tags(root, steps), _words(details, root))


def _words(details: ErrorDetails, root: Any) -> str:
    kind, path, context = details["type"], details["loc"], details.get("ctx", {})
    if kind == WHOLE_SENTENCE:
        return str(context["words"])
    if kind == "extra_forbidden":
        return unknown_key(path[-1], _fields_at(root, path[:-1]))
    if kind == "missing":
        return f"expected {_meaning(root, path)}, got nothing"
    expected = EXPECTED[kind].format(**context) if kind in EXPECTED else f"a usable value ({details['msg']})"
    return f"expected {expected}, got {spell(details['input'])}"


def _meaning(root: Any, path: Steps) -> str:
    field = _fields_at(root, path[:-1]).get(str(path[-1]))
    described = field.description if field is not None else None
    return f"a value ({described.splitlines()[0].rstrip('.')})" if described else "a value"


def _fields_at(root: Any, path: Steps) -> dict[str, Any]:
    """The fields of the model that stands at a path of the type `root`."""
    here = root
    for step in path:
        here = _inner(here, step)
    return dict(_plain(here).model_fields)


def _without_tags(root: Any, path: Steps) -> Steps:
    """The steps that the author of the document wrote: without pydantic's word for the member of a tagged union."""
    here, written = root, []
    for step in path:
        if not (tags := _tagged(here)):
            written.append(step)
        elif step not in tags:
            return tuple(written)
        here = _inner(here, step)
    return tuple(written)


def _inner(here: Any, step: str | int) -> Any:
    """The type one step further down."""
    if tags := _tagged(here):
        return tags[str(step)]
    here = _plain(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return here.model_fields[str(step)].annotation if str(step) in here.model_fields else None
    return ([inner for inner in get_args(here) if inner is not Ellipsis] or [None])[-1]


def _tagged(annotation: Any) -> dict[str, Any]:
    """The members of a tagged union by their tags; none of any other type."""
    if get_origin(annotation) is not Annotated or not any(isinstance(x, Discriminator) for x in get_args(annotation)):
        return {}
    members = [get_args(member) for member in get_args(get_args(annotation)[0])]
    return {tag.tag: member[0] for member in members for tag in member if isinstance(tag, Tag)}


def _plain(annotation: Any) -> Any:
    """`Annotated[X, …]` and `X | None` → X."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return _plain(next(inner for inner in get_args(annotation) if inner is not NoneType))
    return annotation
