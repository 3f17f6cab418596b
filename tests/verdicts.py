"""What becomes of each file, beyond its header: understood as a series of its own, its pixels decoded.

Run as ``python -m tests.verdicts MEMORY_BYTES FILE …``: one JSON line per file, {"verdict", "seconds", "megabytes"}.
Every file is met in a child of its own, which may die of it; seconds are those of the processor.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import warnings
from datetime import UTC
from pathlib import Path

import pydicom.pixels

from dicom_io import headers, lossless_jpeg, series
from dicom_io.elements import Limits
from dicom_io.errors import DicomError
from dicom_io.forked import address_space_bytes
from dicom_io.pixels import DECODERS, frame_count, read_dataset, stored_frame

HANG_S = 20
LOADED = [pydicom.pixels.get_decoder(syntax).available_plugins for syntax in DECODERS], lossless_jpeg
"""Decoders are loaded once, before any child."""


def main(memory_bytes: int, paths: list[Path]) -> None:
    for path in paths:
        answer, told = os.pipe()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes() + memory_bytes,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (HANG_S, HANG_S))
            os.write(told, verdict(path).encode())
            os._exit(0)
        os.close(told)
        with os.fdopen(answer) as lines:
            said = lines.read()
        _, status, usage = os.wait4(child, 0)
        print(
            json.dumps(
                {
                    "verdict": said or f"died with status {status}",
                    "seconds": usage.ru_utime + usage.ru_stime,
                    "megabytes": usage.ru_maxrss / 1024,
                }
            )
        )


def verdict(path: Path) -> str:
    """The first refusal, or the kind of series and the shape of the pixels."""
    try:
        reading = headers.read(path, Limits())
        facts = series.understand([reading.header], {}, UTC)
        if reading.pixel_sha256 is None:
            return f"{facts['kind']}, no pixels"
        dataset = read_dataset(path, reading.transfer_syntax_uid)
        count = frame_count(dataset)
        shapes = {stored_frame(dataset, index).shape for index in range(count)}
    except DicomError as error:
        return f"{type(error).__name__}: {error.code}"
    except BaseException as error:
        return f"UNTYPED {type(error).__name__}: {error}"
    return f"{facts['kind']}, {count} × {shapes}"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
