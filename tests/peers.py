"""The world around the node under test: DCMTK and Orthanc as senders and archives, and other people's data.

What is missing skips the test aloud (a missing program fails it where CI is set). Programs get ports that are free at
the time, and nothing here ever talks to an address other than 127.0.0.1.
"""

import atexit
import functools
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pydicom
import pytest

from tests.processes import ENVIRONMENT, Server, free_port, missing, process_tree, program, rss_bytes, wait_until

__all__ = [
    "Orthanc",
    "Sender",
    "Sending",
    "StoreScp",
    "Transmission",
    "dicom_web",
    "echoscu",
    "free_port",
    "process_tree",
    "program",
    "real_data",
    "rss_bytes",
    "sop_instance_uid",
    "storescu",
    "unpack",
    "unpack_sarcoma",
    "wait_until",
]

REPOSITORY = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
FILES_PER_COMMAND = 2000
DICOM_WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Orthanc:
    """Debian's Orthanc with its own folder and free ports, no authentication; its REST API for checks.

    `modalities` maps the name of a peer to (AE title, host, port). `settings` are further keys of Orthanc's
    configuration; without those of `dicom_web` there is no plug-in. Stopping and starting again keeps what it stored.
    """

    folder: Path
    aet: str = "ORTHANC"
    overwrite_instances: bool = False
    modalities: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    wrapper: Sequence[str] = ()
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        command = [program("Orthanc"), str(configuration)]
        log = self.folder / "orthanc.log"
        self._server = Server("Orthanc", command, self.dicom_port, log, self.wrapper)
        self._client = httpx.Client(base_url=f"http://{LOOPBACK}:{self.http_port}", timeout=60, trust_env=False)

    def _configuration(self) -> dict[str, object]:
        return {
            "Name": "tracerd-test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "DicomAet": self.aet,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomCheckModalityHost": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": self.overwrite_instances,
            "DicomModalities": {name: list(peer) for name, peer in self.modalities.items()},
            **self.settings,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Not stop(): a graceful end takes Orthanc 3.5 s, and there is nothing more to keep.
        self.kill()
        self._client.close()

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        (self.folder / "orthanc.json").write_text(json.dumps(self._configuration()))
        self._server.start()
        self.wait_ready()

    def wait_ready(self, timeout: float = 30) -> None:
        wait_until(self._answers, timeout)

    def _answers(self) -> bool:
        try:
            return self._client.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def get(self, path: str, **query: str) -> Any:
        """The JSON document at a REST path; httpx.HTTPStatusError when there is none."""
        return self._client.get(path, params=query).raise_for_status().json()

    def post(self, path: str, document: object) -> Any:
        return self._client.post(path, json=document).raise_for_status().json()

    def count(self) -> int:
        return int(self.get("/statistics")["CountInstances"])

    def instances(self) -> dict[str, str]:
        """SOP Instance UID → Orthanc's own id of every stored instance."""
        stored = self.get("/instances", expand="")
        return {instance["MainDicomTags"]["SOPInstanceUID"]: instance["ID"] for instance in stored}

    def download(self, sop_instance_uid: str) -> bytes:
        """The stored Part 10 file, byte for byte; KeyError when Orthanc has no such instance."""
        return self._client.get(f"/instances/{self._identifier(sop_instance_uid)}/file").raise_for_status().content

    def delete(self, sop_instance_uid: str) -> None:
        """KeyError when Orthanc has no such instance."""
        self._client.delete(f"/instances/{self._identifier(sop_instance_uid)}").raise_for_status()

    def _identifier(self, sop_instance_uid: str) -> str:
        found = self.post(
            "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}, "Expand": False}
        )
        if not found:
            raise KeyError(sop_instance_uid)
        return str(found[0])

    def save_all(self, folder: Path) -> list[Path]:
        """Every stored instance as a file `<Orthanc id>.dcm` in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = []
        for identifier in self.get("/instances"):
            path = folder / f"{identifier}.dcm"
            path.write_bytes(self._client.get(f"/instances/{identifier}/file").raise_for_status().content)
            saved.append(path)
        return saved

    def send_to(self, modality: str, identifiers: Sequence[str]) -> Any:
        """Have Orthanc C-STORE its resources to one of `modalities`; its job's report."""
        return self.post(f"/modalities/{modality}/store", {"Resources": list(identifiers), "Synchronous": True})


def dicom_web() -> dict[str, object]:
    """Settings of an `Orthanc` that answers DICOMweb below /dicom-web/; skips the test where the plug-in is missing."""
    if not DICOM_WEB_PLUGIN.is_file():
        missing("Orthanc's DICOMweb is missing: apt-get install --no-install-recommends orthanc-dicomweb")
    whole = {"StudiesMetadata": "Full", "SeriesMetadata": "Full"}
    return {"Plugins": [str(DICOM_WEB_PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/", **whole}}


@dataclass
class StoreScp:
    """DCMTK's storescp writing into a folder; `bit_preserving` keeps the data sets exactly as they came."""

    folder: Path
    aet: str = "STORESCP"
    bit_preserving: bool = True
    options: Sequence[str] = ()
    wrapper: Sequence[str] = ()
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.output = self.folder / "received"
        self.output.mkdir(parents=True, exist_ok=True)
        preserving = ["--bit-preserving"] if self.bit_preserving else []
        command = [program("storescp"), "-aet", self.aet, "-od", str(self.output), *preserving, *self.options]
        self._server = Server(
            "storescp", [*command, str(self.port)], self.port, self.folder / "storescp.log", self.wrapper
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def files(self) -> list[Path]:
        return sorted(path for path in self.output.rglob("*") if path.is_file())

    def received(self) -> dict[str, Path]:
        """SOP Instance UID → file."""
        return {sop_instance_uid(path): path for path in self.files()}


def sop_instance_uid(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)


@dataclass(frozen=True)
class FileResult:
    """What storescu said about one file: the text of the C-STORE response, None when it had none."""

    path: Path
    response: str | None

    @property
    def acknowledged(self) -> bool:
        return self.response == "Success"


@dataclass(frozen=True)
class Sending:
    """The outcome of one `storescu`, in the order in which the files were to go."""

    results: tuple[FileResult, ...]
    log: str
    seconds: float

    @property
    def acknowledged(self) -> list[Path]:
        return [result.path for result in self.results if result.acknowledged]

    @property
    def unacknowledged(self) -> list[Path]:
        """What a scanner would send again."""
        return [result.path for result in self.results if not result.acknowledged]


@dataclass(frozen=True)
class Sender:
    """A scanner made of DCMTK's storescu.

    `associations` run in parallel, each a process of its own; `files_per_association` opens a new one every so many
    files; `shuffle_seed` sends in a shuffled order. DCMTK's default proposal knows no SEG: `propose_needed` proposes
    the SOP classes of the files instead. storescu goes on after a refused file, and stops when the association is lost
    or a file has no presentation context.
    """

    port: int
    host: str = LOOPBACK
    calling_ae: str = "PETCT1"
    called_ae: str = "TRACERD"
    associations: int = 1
    files_per_association: int | None = None
    shuffle_seed: int | None = None
    propose_needed: bool = False
    options: tuple[str, ...] = ()

    def send(self, files: Iterable[Path], timeout: float = 300) -> Sending:
        """Send and wait; TimeoutError, with the senders killed, after `timeout` seconds."""
        return self.start(files).wait(timeout)

    def start(self, files: Iterable[Path]) -> "Transmission":
        """Begin to send; `wait()` for the outcome or `kill()` the senders."""
        order = list(files)
        if self.shuffle_seed is not None:
            random.Random(self.shuffle_seed).shuffle(order)
        return Transmission(self._command(), order, self.associations, self.files_per_association)

    def _command(self) -> list[str]:
        needed = ["--required"] if self.propose_needed else []
        titles = ["-aet", self.calling_ae, "-aec", self.called_ae]
        patience = ["--timeout", "10", "--dimse-timeout", "60"]
        return [program("storescu"), "-v", "-nh", *titles, *patience, *needed, *self.options, self.host, str(self.port)]


class Transmission:
    """storescu processes at work."""

    def __init__(self, command: Sequence[str], files: Sequence[Path], lanes: int, per_command: int | None) -> None:
        self._command = list(command)
        self._files = list(files)
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._killed = False
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="storescu")
        size = min(per_command or FILES_PER_COMMAND, FILES_PER_COMMAND)
        # Neighbouring files go to different associations, as from a scanner with several exports running.
        self._lanes: list[Future[list[str]]] = [
            self._pool.submit(self._run_lane, self._files[lane::lanes], size) for lane in range(lanes)
        ]
        self._pool.shutdown(wait=False)

    def _run_lane(self, files: Sequence[Path], size: int) -> list[str]:
        return [self._run(files[first : first + size]) for first in range(0, len(files), size)]

    def _run(self, files: Sequence[Path]) -> str:
        with self._lock:
            if self._killed:
                return ""
            process = subprocess.Popen(
                [*self._command, *map(str, files)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=os.environ | ENVIRONMENT,
            )
            self._processes.add(process)
        _, log = process.communicate()
        with self._lock:
            self._processes.discard(process)
        return log

    def wait(self, timeout: float = 300) -> Sending:
        try:
            logs = [log for lane in self._lanes for log in lane.result(self._began + timeout - time.monotonic())]
        except TimeoutError:
            self.kill()
            raise
        seconds = time.monotonic() - self._began
        responses = [pair for log in logs for pair in _responses(log)]
        return Sending(_in_order(self._files, responses), "\n".join(logs), seconds)

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            for process in self._processes:
                process.kill()


def _responses(log: str) -> list[tuple[str, str | None]]:
    """(file, text of its response) in the order of storescu's verbose log."""
    found: list[tuple[str, str | None]] = []
    for line in log.splitlines():
        if sending := re.match(r"I: Sending file: (.*)", line):
            found.append((sending[1], None))
        elif (response := re.match(r"I: Received Store Response \((.*)\)", line)) and found:
            found[-1] = (found[-1][0], response[1])
    return found


def _in_order(files: Sequence[Path], responses: Iterable[tuple[str, str | None]]) -> tuple[FileResult, ...]:
    """One result per file, also for one listed twice; a file that was never tried has no response."""
    answered: dict[str, list[str | None]] = {}
    for path, response in responses:
        answered.setdefault(path, []).append(response)
    return tuple(FileResult(path, (answered.get(str(path)) or [None]).pop(0)) for path in files)


def storescu(files: Iterable[Path], port: int, *, timeout: float = 300, **options: Any) -> Sending:
    """Send files to 127.0.0.1:`port` and wait; `options` are those of `Sender`."""
    return Sender(port, **options).send(files, timeout)


def echoscu(port: int, *, calling_ae: str = "PETCT1", called_ae: str = "TRACERD") -> bool:
    """Whether a C-ECHO is answered with success within 10 s."""
    command = [program("echoscu"), "-to", "10", "-ta", "10", "-td", "10", "-aet", calling_ae, "-aec", called_ae]
    return subprocess.run([*command, LOOPBACK, str(port)], capture_output=True, check=False).returncode == 0


def real_data() -> Path:
    """The folder with other people's data (TRACERD_REAL_DATA, else ../shared/data); skips the test where it is not."""
    folder = Path(os.environ.get("TRACERD_REAL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TRACERD_REAL_DATA")
    return folder


@functools.cache
def session_folder() -> Path:
    """A folder that lives as long as this test process."""
    folder = Path(tempfile.mkdtemp(prefix="tracerd-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def unpack(archive: str) -> Path:
    """The contents of one archive of the real data, unpacked once per test process; treat it as read-only."""
    source = real_data() / archive
    if not source.is_file():
        pytest.skip(f"{archive} is not among the real data")
    folder = session_folder() / archive.removesuffix(".tar.xz")
    folder.mkdir(parents=True)
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(source) as packed:
        packed.extractall(folder, **safely)
    return folder


def unpack_sarcoma(study: str = "STS_001") -> Path:
    """One soft-tissue sarcoma study: CT/image, PET/image, RTSTRUCTs beside them, gtv_on_pet.nii.gz. Read-only."""
    folder = unpack(f"soft_tissue_sarcoma/{study}.tar.xz")
    return folder / study if (folder / study).is_dir() else folder
