"""What a kill leaves behind: every acknowledged row, and a database that opens by itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from db.schema import SCHEMA_VERSION, Node, Study
from db.session import Store

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def study(uid: str = "1.2.3", **values: object) -> Study:
    return Study(study_uid=uid, first_arrival=NOON, last_arrival=NOON, **values)


def program(folder: Path, code: str) -> subprocess.Popen[str]:
    """A child process that runs `code` with the packages on its path, from another working directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


COMMITS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from db.schema import Study
from db.session import Store
store = Store.open(Path("node.db"))
now = datetime.now(UTC)
n = 0
while True:
    with store.write() as session:
        row = Study(study_uid=f"1.{n}", first_arrival=now, last_arrival=now)
        session.add(row)
    sys.stdout.write(f"{row.id}\\n")
    sys.stdout.flush()
    n += 1
"""


@pytest.mark.parametrize("wanted", [1, 60])
def test_every_acknowledged_row_survives_a_kill(tmp_path: Path, wanted: int) -> None:
    child = program(tmp_path, COMMITS)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(wanted)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert child.wait(timeout=10) == -signal.SIGKILL

    # a reader finds them before any writer has cleaned up, and so does the next start
    for migrate in (False, True):
        store = Store.open(tmp_path / "node.db", migrate=migrate)
        with store.read() as session:
            present = list(session.scalars(select(Study.id).order_by(Study.id)))
            assert present[: len(acknowledged)] == acknowledged
            assert len(present) - len(acknowledged) in {0, 1}  # the last one may have lost only its answer
            assert session.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        store.close()
    store = Store.open(tmp_path / "node.db")
    with store.write() as session:
        session.add(study("2.1"))
    store.close()


CREATIONS = """
from pathlib import Path
from db.session import Store
import alembic.command
print("ready", flush=True)
for n in range(1000):
    Store.open(Path(f"{n:03}.db")).close()
"""


@pytest.mark.parametrize("delay_s", [0.01, 0.13, 0.21])
def test_a_kill_while_the_database_is_made_needs_nobodys_help(tmp_path: Path, delay_s: float) -> None:
    child = program(tmp_path, CREATIONS)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=10)
    made = sorted(path for path in tmp_path.iterdir() if path.suffix == ".db")
    for path in made or [tmp_path / "000.db"]:
        store = Store.open(path)
        with store.write() as session:
            session.add(study())
        with store.read() as session:
            assert session.get_one(Node, 1).schema_version == SCHEMA_VERSION
        store.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows the system calls; it is not installed")
def test_the_log_is_on_the_disk_before_a_commit_is_acknowledged(tmp_path: Path) -> None:
    """Power loss cannot be rehearsed here, its precaution can be seen: write-ahead log synced, then the answer."""
    trace = tmp_path / "trace"
    code = COMMITS.replace("while True", "while n < 20")
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=write,fdatasync,fsync", sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        pytest.skip("strace may not trace here")
    synced = False
    answers = 0
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.search(r"(fdatasync|fsync)\(\d+<[^>]*node\.db-wal>\) += 0", line):
            synced = True
        if re.search(r'write\(1<[^>]*>, "\d+\\n"', line):
            assert synced, line
            synced = False
            answers += 1
    assert answers == 20
