"""Files and folders → the DICOM series in them, read in the sandbox; the same object twice is one object."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dicom_io.errors import UnreadableObject
from dicom_io.sandbox import Sandbox

if TYPE_CHECKING:
    from dicom_io.headers import Header
    from dicom_io.survey import Survey
    from engines.contract import Json

    Answers = Iterator[Survey | UnreadableObject]

CHILD_MEMORY_BYTES = 2 * 2**30
CHILD_TIMEOUT_S = 30.0
FILES_PER_CHILD = 50
"""For fewer files, another child is no gain."""


class File(NamedTuple):
    """A file to look at, and whether it was named itself rather than found in a folder."""

    path: Path
    named: bool


class Instance(NamedTuple):
    """A DICOM object and the file it is in."""

    path: Path
    survey: Survey


@dataclass(slots=True)
class FoundSeries:
    """The instances of one series, in the order of their files.

    differing : how many instances say something else than an earlier one with the same SOP Instance UID; they are kept
    """

    instances: list[Instance] = field(default_factory=list)
    differing: int = 0

    @property
    def headers(self) -> list[Header]:
        """One per instance."""
        return [instance.survey.header for instance in self.instances]

    @property
    def folder(self) -> Path:
        """The innermost folder that holds all the files, absolute."""
        folders = {os.path.dirname(path) for path, _ in self.instances}  # noqa: PTH120 - pathlib takes ten times as long
        return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))  # noqa: PTH100


@dataclass(frozen=True, slots=True)
class Contents:
    """Series Instance UID → series; and the files that could not be read: {"path", "code", "reason"}."""

    series: Mapping[str, FoundSeries]
    unreadable: Sequence[dict[str, Json]]


def files_below(paths: Iterable[Path]) -> list[File]:
    """Every file at or below the paths, in the order of names; a folder that cannot be listed stands for its files.

    Raises
    ------
    FileNotFoundError
        A path that is not there.
    """
    found: dict[Path, bool] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        for file in _walk(path) if path.is_dir() else (File(path, named=True),):
            found[file.path] = file.named or found.get(file.path, False)
    return [File(path, named) for path, named in found.items()]


def _walk(top: Path) -> Iterator[File]:
    closed: list[OSError] = []
    for folder, subfolders, names in os.walk(top, onerror=closed.append):
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)  # noqa: PTH118 - pathlib takes several times as long
            if os.path.isfile(path):  # noqa: PTH113
                yield File(Path(path), named=False)
    yield from (File(Path(error.filename), named=True) for error in closed)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def sandbox_for(files: int) -> Sandbox:
    """Children to read so many files, one per core at most; entering it starts them."""
    children = min(cores(), 1 + files // FILES_PER_CHILD)
    return Sandbox(CHILD_MEMORY_BYTES, CHILD_TIMEOUT_S, children=children, copies=True)


def collect(
    files: Sequence[File], sandbox: Sandbox, watch: Callable[[Answers], Iterable[Survey | UnreadableObject]] = iter
) -> Contents:
    """Read the files and group them by series; a file that is no DICOM is listed only where it was named itself.

    watch : sees every answer pass, for a progress bar
    """
    instances: list[Instance] = []
    unreadable: list[dict[str, Json]] = []
    for file, answer in zip(files, watch(sandbox.survey_many(file.path for file in files)), strict=True):
        if not isinstance(answer, UnreadableObject):
            instances.append(Instance(file.path, answer))
        elif file.named or answer.code != "not-dicom":
            unreadable.append({"path": str(file.path), "code": answer.code, "reason": str(answer)})
    return Contents(_by_series(instances, _copies(instances, sandbox)), unreadable)


def _by_series(instances: Sequence[Instance], copies: Mapping[int, bool]) -> dict[str, FoundSeries]:
    series: dict[str, FoundSeries] = defaultdict(FoundSeries)
    for index, instance in enumerate(instances):
        found = series[instance.survey.header["SeriesInstanceUID"]]
        differs = copies.get(index)
        if differs is not False:
            found.instances.append(instance)
        found.differing += differs is True
    return dict(series)


def _copies(instances: Sequence[Instance], sandbox: Sandbox) -> dict[int, bool]:
    """Index of each instance that is a copy of an earlier one by its UID → whether its content differs from it."""
    by_uid: dict[str, list[int]] = defaultdict(list)
    for index, instance in enumerate(instances):
        by_uid[instance.survey.header["SOPInstanceUID"]].append(index)
    repeated = [index for indices in by_uid.values() if len(indices) > 1 for index in indices]
    readings = sandbox.read_many(instances[index].path for index in repeated)
    contents: dict[str, set[str]] = defaultdict(set)
    differs: dict[int, bool] = {}
    for index, reading in zip(repeated, readings, strict=True):
        uid = instances[index].survey.header["SOPInstanceUID"]
        content = reading.code if isinstance(reading, UnreadableObject) else reading.content_sha256
        if contents[uid]:
            differs[index] = content not in contents[uid]
        contents[uid].add(content)
    return differs
