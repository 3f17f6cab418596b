"""`tracerd demo` as a newcomer runs it: a node, a scanner, a PACS, pages and a table."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from matplotlib.image import imread
from pydicom import dcmread

from tests.processes import program

ROOT = Path(__file__).resolve().parents[2]
Demo = tuple[subprocess.CompletedProcess[str], Path, Path]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The finished demonstration, its folder of results, and the folder for temporary files it was given."""
    program("storescp")
    folder = tmp_path_factory.mktemp("demo")
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "daemon", "demo", "--out", str(folder / "out")]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    return done, folder / "out", temporary


def test_every_kind_is_recognised_and_what_has_an_engine_is_processed(demo: Demo) -> None:
    done, _, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    rules = ["fdg-lesions", "fdg-lesions", "fdg-low-count", "without-ct", "psma-lesions", "heart"]
    assert [next(word for word in line if word in rules) for line in lines] == rules
    assert ["done" in line for line in lines] == [True] + [False] * 5
    said = " ".join(done.stdout.split())
    assert "Study 2 was rejected: Patient's Weight (0010,1030)" in said
    for number, name in enumerate(("lowcount_denoising", "ctless_attenuation", "psma_detection", "rb82_denoising"), 3):
        assert f"Study {number} was rejected: no engine: {name} is not in this version" in said


def test_results_and_pages_are_left_and_nothing_else(demo: Demo) -> None:
    _, out, temporary = demo
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    pages = {f"study-{number}/page.png" for number in range(1, 7)}
    assert left == {"study-1/seg.dcm", "study-1/sr.dcm", *pages}
    seg, sr = (dcmread(out / "study-1" / name) for name in ("seg.dcm", "sr.dcm"))
    assert (seg.Modality, sr.Modality) == ("SEG", "SR")
    assert seg.StudyInstanceUID == sr.StudyInstanceUID
    assert "RESEARCH USE ONLY" in seg.SeriesDescription
    for path in out.rglob("*.png"):
        assert imread(path).shape[:2] == (990, 1540)
    assert list(temporary.glob("tracerd-demo-*")) == [], "the node's data folder was not asked to be kept"


def test_no_process_stays_behind(demo: Demo) -> None:
    _, _, temporary = demo
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(temporary) in command]
