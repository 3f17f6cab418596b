"""Where the time goes: the kernel's part, the wire's part, the disk's part. Every view costs time of its own."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom

from benchmarks.speed import syscalls
from benchmarks.speed.receivers import CALLED_AE, CALLING_AE, Receiver, Site, check, send
from dicom_io.spool import Incoming, Origin, Spool
from tests.proxy import RecordingProxy
from tests.wiretap import Store


def trace(site: Site, receiver: Receiver, files: Sequence[Path]) -> dict[str, Any]:
    """Calls in all and milliseconds per instance of one association under strace, which slows everything."""
    with site.folder() as folder, TemporaryDirectory() as outside:
        log = Path(outside) / "strace.log"
        with receiver.running(folder, syscalls.wrapper(log)) as running:
            start = log.stat().st_size
            sending = send(running.port, files, 1)
            end = log.stat().st_size
            check(receiver, sending, running.stored())
        tallies = syscalls.read(log, start, end)
    return {
        "receiver": receiver.name,
        "instances": len(files),
        "seconds": round(sending.seconds, 4),
        "calls": {
            kind: {"count": tally.count, "ms_per_instance": round(tally.seconds / len(files) * 1e3, 4)}
            for kind, tally in sorted(tallies.items())
        },
    }


def refuse_undurable(traced: dict[str, Any]) -> None:
    """RuntimeError unless each instance had its file and its folder flushed: otherwise speed means nothing."""
    calls = traced["calls"]
    for kind in ("fdatasync of file", "fsync of directory"):
        if (count := calls.get(kind, {"count": 0})["count"]) < traced["instances"]:
            raise RuntimeError(f"{traced['receiver']}: {count} × {kind} for {traced['instances']} instances")


def watch(site: Site, receiver: Receiver, files: Sequence[Path]) -> list[Store]:
    """The minutes of one association through a proxy, which takes CPU itself and adds its own delay."""
    with (
        site.folder() as folder,
        receiver.running(folder) as running,
        RecordingProxy(("127.0.0.1", running.port)) as proxy,
    ):
        check(receiver, send(proxy.port, files, 1), running.stored())
        return proxy.stores()


def parts(repetitions: Sequence[Sequence[Store]]) -> dict[str, float]:
    """The median instance's three parts [ms], of all repetitions together."""
    on_the_wire, answers, prepares = [], [], []
    for stores in repetitions:
        for each in stores:
            assert each.request_ended is not None
            assert each.response_began is not None
            on_the_wire.append(each.request_ended.monotonic - each.request_began.monotonic)
            answers.append(each.response_began.monotonic - each.request_ended.monotonic)
        for before, after in pairwise(stores):
            assert before.response_began is not None
            prepares.append(after.request_began.monotonic - before.response_began.monotonic)
    return {
        "request_on_the_wire_ms": _median_ms(on_the_wire),
        "receiver_answers_ms": _median_ms(answers),
        "sender_prepares_next_ms": _median_ms(prepares),
    }


def spool_alone(site: Site, files: Sequence[Path]) -> dict[str, float]:
    """The durable file drop without network or protocol: what the disk and the kernel allow one writer."""
    contents, origin = [path.read_bytes() for path in files], _origin(files[0])
    writes, commits = [], []
    with site.folder() as folder:
        spool = Spool(folder)
        spool.prepare()
        for number, content in enumerate(contents):
            began = time.perf_counter()
            incoming = Incoming(spool, f"{number:06}", origin)
            incoming.write(content)
            written = time.perf_counter()
            incoming.commit()
            writes.append(written - began)
            commits.append(time.perf_counter() - written)
    return {
        "write_ms": _median_ms(writes),
        "commit_ms": _median_ms(commits),
        "instances_per_s": round(len(files) / (sum(writes) + sum(commits)), 1),
    }


def _origin(path: Path) -> Origin:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return Origin(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        calling_ae=CALLING_AE,
        called_ae=CALLED_AE,
        peer="dicom:127.0.0.1:0",
    )


def _median_ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 4)
