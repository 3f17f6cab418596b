"""PyTorch checkpoints (.pth) → arrays by name, without unpickling.

`torch.save` writes a zip archive: `PREFIX/data.pkl` describes the content, `PREFIX/data/0`, `1`, … are the numbers of
the tensors, all uncompressed. The description is interpreted by `engines.opcodes`, the numbers are read by numpy.
Everything has a limit, nothing is written to disk, and records are found by number, never by a name in the file.
"""

from __future__ import annotations

import struct
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.models import BYTES_MAX
from engines.opcodes import CheckpointRefused, Storage, StoredTensor, plain_values

Arrays = dict[str, NDArray[Any]]
FILE_BYTES_MAX = 3 * BYTES_MAX
"""With the state of an optimiser a checkpoint is three times its weights."""
DESCRIPTION_BYTES_MAX = 64 * 2**20
RECORDS_MAX = 100_000
DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError, struct.error)
"""What zipfile raises on half an archive, or on another file: a name that is not UTF-8 is a ValueError, a place before
the beginning an OSError."""
LISTED = 12
"""Names that a message lists at most."""
DTYPES: Mapping[str, str] = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "BFloat16": "u2",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "u1",
}
"""PyTorch's storages → numpy, in the byte order of the archive; numpy has no bfloat16, and Bool is a byte here."""
WRAPPERS = ("module.", "_orig_mod.", "network.", "nnunet.", "encoder_decoder.", "backbone.", "model.", "net.")
"""What DataParallel, torch.compile, Lightning, nnU-Net and the foundation model's trainer put before every name."""


@dataclass(frozen=True, slots=True)
class Differences:
    """How tensors differ from the ones a network has, a line each."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        found = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        return "; ".join(f"{len(lines)} {kind}: {_listed(lines)}" for kind, lines in found.items() if lines)


def state_dict(path: Path, key: str | None = None) -> Arrays:
    """Name → array of the network's tensors in a checkpoint, float32 where they are bfloat16 (exactly).

    key : which entry of the checkpoint holds them, None = the only one that is a dictionary of tensors

    Raises
    ------
    CheckpointRefused
        not-checkpoint, archive, too-large, no-tensors, several, and as `opcodes.plain_values`.
    """
    _check_size(path)
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGED as error:
            message = f"{path.name}: expected the archive that torch.save writes since PyTorch 1.6, got another file"
            raise CheckpointRefused(message, code="not-checkpoint") from error
        with archive:
            records = _records(archive)
            content = plain_values(_read(archive, records["data.pkl"]))
            return _arrays(archive, records, _chosen(content, key))


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        raise CheckpointRefused(f"{path.name}: expected at most {FILE_BYTES_MAX} bytes, got {size}", code="too-large")


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name below the one folder of the archive → record. Nothing is compressed, so nothing grows when it is read."""
    entries = archive.infolist()
    if len(entries) > RECORDS_MAX:
        raise CheckpointRefused(f"archive: expected at most {RECORDS_MAX} records, got more", code="too-large")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        top, _, name = entry.filename.partition("/")
        plain = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
        if not plain or entry.flag_bits & 1:
            raise CheckpointRefused(
                "archive: expected plain records, got a compressed or encrypted one", code="archive"
            )
        if name in found or not top or not name or ".." in entry.filename.split("/"):
            raise CheckpointRefused("archive: expected one folder of records, got other names", code="archive")
        found[name] = entry
    if len({entry.filename.partition("/")[0] for entry in entries}) != 1 or "data.pkl" not in found:
        raise CheckpointRefused("archive: expected one folder with data.pkl, got none", code="not-checkpoint")
    if found["data.pkl"].file_size > DESCRIPTION_BYTES_MAX:
        message = f"data.pkl: expected at most {DESCRIPTION_BYTES_MAX} bytes, got {found['data.pkl'].file_size}"
        raise CheckpointRefused(message, code="too-large")
    return found


def _read(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    """The bytes of a record; their checksum is compared."""
    if record.file_size > (archive.fp.seek(0, 2) if archive.fp else 0):
        raise CheckpointRefused("archive: a record is larger than its file", code="archive")
    try:
        return archive.read(record)
    except DAMAGED as error:
        raise CheckpointRefused("archive: a record is damaged", code="archive") from error


def _chosen(content: Any, key: str | None) -> dict[str, StoredTensor]:
    """The dictionary of tensors: the content itself or one of its entries."""
    if not isinstance(content, dict):
        text = f"checkpoint: expected a dictionary, got {type(content).__name__}"
        raise CheckpointRefused(text, code="no-tensors")
    if key is None and _is_state_dict(content):
        return dict(content)
    found: dict[str, dict[str, StoredTensor]] = {
        name: entry for name, entry in content.items() if _is_state_dict(entry)
    }
    if key is not None:
        if key not in found:
            there = _listed(sorted(map(str, found))) or "none"
            message = f"checkpoint: expected an entry {key} of tensors, those there are: {there}"
            raise CheckpointRefused(message, code="no-tensors")
        return found[key]
    if len(found) != 1:
        names = _listed(sorted(map(str, found))) or "none"
        hint = "Say which with --key." if found else None
        message = f"checkpoint: expected one dictionary of tensors, got {len(found)}: {names}"
        raise CheckpointRefused(message, code="several" if found else "no-tensors", hint=hint)
    return next(iter(found.values()))


def _is_state_dict(entry: Any) -> bool:
    """Names of text, and tensors for all of them."""
    if not isinstance(entry, dict) or not entry:
        return False
    return all(isinstance(name, str) and isinstance(value, StoredTensor) for name, value in entry.items())


def _arrays(
    archive: zipfile.ZipFile, records: Mapping[str, zipfile.ZipInfo], tensors: Mapping[str, StoredTensor]
) -> Arrays:
    """Each storage is read once, whatever shares it."""
    total = sum(tensor.elements * np.dtype(DTYPES[tensor.storage.kind]).itemsize for tensor in tensors.values())
    if total > BYTES_MAX:
        raise CheckpointRefused(f"tensors: expected at most {BYTES_MAX} bytes, got {total}", code="too-large")
    order = _byte_order(archive, records)
    by_record: dict[str, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        by_record[tensor.storage.key].append(name)
    found: Arrays = {}
    for key, names in by_record.items():
        record = records.get(f"data/{key}")
        if record is None:
            raise CheckpointRefused(f"archive: expected the record data/{key}, got none", code="archive")
        content = _read(archive, record)
        found |= {name: _array(tensors[name], content, order) for name in names}
    return {name: found[name] for name in tensors}


def _byte_order(archive: zipfile.ZipFile, records: Mapping[str, zipfile.ZipInfo]) -> str:
    """Numpy's sign for the byte order; older versions of PyTorch do not say it and mean the one of their machines."""
    word = _read(archive, records["byteorder"]) if "byteorder" in records else b"little"
    if word not in (b"little", b"big"):
        raise CheckpointRefused("byteorder: expected little or big, got something else", code="archive")
    return "<" if word == b"little" else ">"


def _array(tensor: StoredTensor, content: bytes, order: str) -> NDArray[Any]:
    """The elements of a tensor, in C order, out of the bytes of its storage."""
    numbers = _numbers(tensor.storage, content, order)
    steps = tuple(step * numbers.itemsize for step in tensor.strides)
    if not tensor.elements:
        array = np.empty(tensor.shape, numbers.dtype)
    else:  # `opcodes` made sure that every element lies inside
        array = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    if tensor.storage.kind == "BFloat16":
        return (native.astype(np.uint32) << 16).view(np.float32)
    return native != 0 if tensor.storage.kind == "Bool" else native


def _numbers(storage: Storage, content: bytes, order: str) -> NDArray[Any]:
    dtype = np.dtype(order + DTYPES[storage.kind])
    if len(content) != storage.count * dtype.itemsize:
        message = f"data/{storage.key}: expected {storage.count * dtype.itemsize} bytes, got {len(content)}"
        raise CheckpointRefused(message, code="archive")
    return np.frombuffer(content, dtype)


def unwrapped(names: Iterable[str], expected: Iterable[str]) -> dict[str, str]:
    """Name → name without what wrappers put before all of them, as far as that makes more of them expected ones."""
    present, wanted = list(names), set(expected)
    best = short = {name: name for name in present}
    while True:
        shared = [prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in short.values())]
        if not shared or not short:
            return best
        short = {name: rest.removeprefix(shared[0]) for name, rest in short.items()}
        if len(wanted & set(short.values())) > len(wanted & set(best.values())):
            best = short


def differences(tensors: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> Differences:
    """What keeps tensors of these shapes from being those of a network."""
    both = [name for name in expected if name in tensors]
    return Differences(
        tuple(name for name in expected if name not in tensors),
        tuple(name for name in tensors if name not in expected),
        tuple(
            f"{name} {tensors[name]}, not {expected[name]}" for name in both if tensors[name] != tuple(expected[name])
        ),
    )


def _listed(lines: Sequence[str]) -> str:
    shown = ", ".join(lines[:LISTED])
    return f"{shown}, …" if len(lines) > LISTED else shown
