"""The child of `dicom_io.sandbox`: limits itself, then reads what strangers sent, one answer per request.

Run as ``python -m dicom_io.reader SETTINGS``. Requests and answers are JSON, one per line, in order.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from dicom_io import commitment, headers, sameness, survey
from dicom_io.elements import Limits
from dicom_io.errors import UnreadableObject
from dicom_io.forked import address_space_bytes
from dicom_io.sandbox import OUT_OF_MEMORY, difference
from engines.contract import Json

PR_SET_PDEATHSIG = 1

ANSWERS: dict[str, Callable[[list[str], Limits], Json]] = {
    "read": lambda paths, limits: headers.read(Path(paths[0]), limits).to_json(),
    "survey": lambda paths, limits: survey.survey(Path(paths[0]), limits).to_json(),
    "statement": lambda paths, limits: commitment.read(Path(paths[0]), limits).to_json(),
    "compare": lambda paths, limits: sameness.compare(Path(paths[0]), Path(paths[1]), limits).to_json(),
}
"""Request {name: [path …]} → what is answered."""


def main(arguments: str) -> None:
    """The life of a child that was started as a program."""
    settings = json.loads(arguments)
    serve(settings, settings["memory_bytes"])


def serve_as_copy(settings: Json) -> None:
    """The life of a child that is a copy of its parent, whose address space it has to begin with."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve(settings, settings["memory_bytes"] + address_space_bytes())


def serve(settings: Json, address_space: int) -> None:
    """Answer requests from descriptor 0 on descriptor 1 until the parent closes the pipe."""
    _die_with(settings["parent"])
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    limits = Limits(**settings["limits"])
    before: dict[str, Json] = {}
    with open(0, "rb", closefd=False) as requests, open(1, "wb", closefd=False) as answers:
        answers.write(b"\n")  # started
        answers.flush()
        for line in requests:
            answer = _answer(json.loads(line), limits)
            found = answer.get("ok", {})
            if "header" in found:
                found["header"], before = difference(before, found["header"]), found["header"]
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()


def _answer(request: dict[str, list[str]], limits: Limits) -> dict[str, Json]:
    ((what, paths),) = request.items()
    try:
        return {"ok": ANSWERS[what](paths, limits)}
    except UnreadableObject as error:
        return {"code": error.code, "message": str(error)}
    except OSError as error:
        return {"code": "unreadable-file", "message": f"file cannot be read: {error.strerror}"}
    except RecursionError:
        return {"code": "too-deep", "message": "data set nested too deep"}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # nothing that needs memory, such as an orderly end, can be relied on now


def _die_with(parent: int) -> None:
    """End when the parent does, also when it is killed (prctl(2), Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
