"""`tracerd train` and `tracerd evaluate`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from daemon.terminal import Json, print_json

SOURCES = (
    "KIND:PLACE, also #N for the first N: cohort:NAME, dicom:FOLDER, store:NODE.yaml, autopet:FOLDER, nnunet:FOLDER, "
    "nifti:FOLDER. May be repeated."
)
Specs = Annotated[list[str], typer.Option("--cases", help=f"Cases: {SOURCES}", metavar="SPEC")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that keeps simulated studies for the next time.", metavar="DIR")
]
EngineName = Annotated[str, typer.Argument(metavar="ENGINE", help="Name of an engine, such as fdg_segmentation.")]
Zone = Annotated[str, typer.Option("--timezone", help="IANA zone of DICOM times without an offset.", metavar="ZONE")]


class Where(StrEnum):
    """Where an engine learns."""

    CPU = "cpu"
    CUDA = "cuda"


def train(
    engine: EngineName,
    learn: Specs,
    out: Annotated[
        Path, typer.Option(help="Folder for the weights and for what a broken-off run needs.", metavar="DIR")
    ],
    tune: Annotated[
        list[str] | None, typer.Option(help="Cases by which the best step is chosen, as --cases.", metavar="SPEC")
    ] = None,
    *,
    preset: Annotated[str, typer.Option(help="Size of the network and length of the run.", metavar="NAME")] = "tiny",
    start: Annotated[
        Path | None, typer.Option(help="Start from these weights instead of pre-training.", metavar="FILE")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Neither pre-train nor start from weights.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was broken off in --out.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed learns the same.", metavar="N")] = 1,
    device: Annotated[Where, typer.Option(help="Where the engine learns.")] = Where.CPU,
    cache: Cache = None,
    timezone: Zone = "UTC",
    as_json: Json = False,
) -> None:
    """Train an engine: pre-training, then fine-tuning on the cases that somebody drew tumours in.

    Ctrl-C keeps what was learned so far. Test cohorts are refused: nothing may be learned from or chosen by them.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `tracerd simulate`
    from daemon.show_models import show_training
    from daemon.sources import Reading
    from daemon.training import Lesson
    from daemon.training import train as run_training

    if start is not None and scratch:
        raise typer.BadParameter("expected --start or --scratch, got both")
    lesson = Lesson(engine, learn, tune or [], preset, out, seed, device.value, start, scratch, resume)
    done = run_training(lesson, Reading(cache, timezone=_zone(timezone)))
    print_json(done) if as_json else show_training(done)


def evaluate(
    engine: EngineName,
    specs: Specs,
    weights: Annotated[
        Path | None, typer.Option(help="NAME.safetensors instead of the weights it is shipped with.", metavar="FILE")
    ] = None,
    *,
    cache: Cache = None,
    timezone: Zone = "UTC",
    as_json: Json = False,
) -> None:
    """Score an engine on cases with a truth: Dice, AutoPET's false volumes, lesions found, errors of volume."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from daemon.show_models import show_evaluation
    from daemon.sources import Reading
    from daemon.training import evaluate as run_evaluation

    done = run_evaluation(engine, specs, weights, Reading(cache, for_evaluation=True, timezone=_zone(timezone)))
    print_json(done) if as_json else show_evaluation(done)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError) as error:
        raise typer.BadParameter(f"expected an IANA zone such as Europe/Berlin, got {name}") from error
