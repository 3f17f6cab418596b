"""The settings of a node as tables for people: every parameter, its default, what it is for, and what a node has.

Everything comes from the models of config/settings.py, so that a new setting is in the tables as soon as it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.values import read_duration, read_size, write_duration, write_size
from dicom_io.selftest import markdown

WRITTEN: Mapping[Any, Callable[[Any], str]] = {read_duration: write_duration, read_size: write_size}
"""Reader of a kind of value → how people write such a value."""
ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting.

    path : keys from the model down to it
    default : as people write it; "required" where there is none
    about : first paragraph of its description
    """

    path: tuple[str, ...]
    default: str
    about: str
    field: FieldInfo

    def of(self, model: BaseModel) -> str:
        """What a model says here; a dash where nothing above it was given."""
        value: Any = model
        for key in self.path:
            if value is None:
                return ABSENT
            value = getattr(value, key)
        return written(value, self.field)


def parameters(
    model: type[BaseModel], path: tuple[str, ...] = (), usual: BaseModel | None = None
) -> Iterator[Parameter]:
    """The settings of a model and of the models in it; a list of models is somebody else's table.

    usual : an instance whose values are the defaults, where the field that holds the model names one
    """
    for name, field in model.model_fields.items():
        inner, is_list = _inner_model(field.annotation)
        if is_list:
            continue
        default = field.get_default(call_default_factory=True) if usual is None else getattr(usual, name)
        if inner is None or default is None:
            words = "required" if default is PydanticUndefined else written(default, field)
            about = " ".join((field.description or "").partition("\n\n")[0].split())
            yield Parameter((*path, name), words, about, field)
        if inner is not None:
            yield from parameters(inner, (*path, name), default if isinstance(default, BaseModel) else None)


def table(
    model: type[BaseModel], given: Mapping[str, BaseModel] | None = None, *, under: tuple[str, ...] | None = None
) -> str:
    """One line per setting, in Markdown; a column for each model given, under its name.

    under : only those whose path begins with one of these keys
    """
    columns = dict(given or {})
    rows = [
        (f"`{'.'.join(one.path)}`", *(_cell(one.of(each)) for each in columns.values()), one.default, _cell(one.about))
        for one in parameters(model)
        if under is None or one.path[0] in under
    ]
    return markdown(("parameter", *map(_cell, columns), "default", "what it is"), rows)


def written(value: object, field: FieldInfo) -> str:
    """A value of a field as people write it."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, BaseModel):
        return "given"
    if isinstance(value, int | float):
        for reader in _readers(field):
            if reader in WRITTEN:
                return WRITTEN[reader](value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inner_model(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """The model within an annotation, and whether there may be several of it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        found, _ = _inner_model(argument)
        if found is not None:
            return found, get_origin(annotation) in {tuple, list, dict}
    return None, False


def _readers(field: FieldInfo) -> Iterator[Any]:
    """What reads the text of a field, also where it is one of several types."""
    parts = [field.annotation, *get_args(field.annotation)]
    within = [each for part in parts if get_origin(part) is Annotated for each in part.__metadata__]
    yield from (each.func for each in (*field.metadata, *within) if hasattr(each, "func"))
