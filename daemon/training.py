"""`tracerd train` and `tracerd evaluate`: engines learn from sources of cases, and are judged by them."""

from __future__ import annotations

import json
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from daemon.commands import CannotDo
from daemon.node import TRACERD_VERSION, utc_now
from daemon.sources import Cases, Reading, cases
from daemon.terminal import watched
from engines import durable, models
from engines.errors import NoEngine, WeightsRefused
from engines.models import SUFFIX, Architecture, Card
from engines.registry import runnable

if TYPE_CHECKING:
    from engines.evaluation import Score
    from engines.fdg_segmentation.preprocessing import Example
    from engines.fdg_segmentation.train import Preset, Tensors, Trained
    from engines.training import Run

LEARNING = frozenset({"fdg_segmentation"})
FINDING_LESIONS = frozenset({"fdg_segmentation", "threshold_segmentation"})
SETTINGS = "run.json"
WEIGHTS = f"weights{SUFFIX}"
_STEP = re.compile(r"step (\d+)")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What `tracerd train` was asked for.

    learn, tune : sources; start : weights to start from instead of pre-training; scratch : neither
    """

    engine: str
    learn: Sequence[str]
    tune: Sequence[str]
    preset: str
    out: Path
    seed: int = 1
    device: str = "cpu"
    start: Path | None = None
    scratch: bool = False
    resume: bool = False

    def settings(self) -> dict[str, Any]:
        """What a later process must have been asked for too, if it is to go on."""
        start = None if self.start is None else models.card_of(self.start).sha256
        return {
            "engine": self.engine,
            "cases": list(self.learn),
            "tune": list(self.tune),
            "preset": self.preset,
            "seed": self.seed,
            "start": start,
            "scratch": self.scratch,
        }


def train(lesson: Lesson, reading: Reading) -> dict[str, Any]:
    """Learn; leaves OUT/weights.safetensors with its card. Ctrl-C keeps what was learned so far, `resume` goes on.

    Raises
    ------
    CannotDo
        OUT holds another training, or one and nobody said to go on; nothing to learn from.
    engines.errors.EngineError
        Stopped, and as sources and the engine's training.
    """
    if lesson.engine not in LEARNING:
        runnable(lesson.engine)
        raise NoEngine(f"engine {lesson.engine}: expected one that learns, {', '.join(sorted(LEARNING))}")
    from engines.fdg_segmentation.train import PRESETS, finetune_on

    if lesson.preset not in PRESETS:
        raise CannotDo(f"--preset: expected one of {', '.join(PRESETS)}, got {lesson.preset}")
    preset = PRESETS[lesson.preset]
    learn, tune = _joined(lesson.learn, reading), _joined(lesson.tune, reading)
    if learn is None:
        raise CannotDo("--cases: expected a source to learn from")
    _open(lesson)
    prepared, chosen = _prepared(learn, preset, "cases"), _prepared(tune, preset, "tune")
    if not any(each.truth is not None for each in prepared):
        raise CannotDo("--cases: expected cases that somebody drew tumours in, got none with a truth")
    start = _start(lesson, preset, prepared)
    with _run(lesson, "finetune", preset.finetuning.steps) as run:
        trained = finetune_on(prepared, chosen, preset, run, start)
    card = _card(lesson, preset, (len(prepared), len(chosen)), trained)
    path = lesson.out / WEIGHTS
    digest = models.save(path, trained.tensors, card)
    return {
        **lesson.settings(),
        "weights": str(path),
        "sha256": digest,
        "learned_from": len(prepared),
        "chosen_by": len(chosen),
        "metrics": card.to_json()["metrics"],
        "seconds": round(trained.history.seconds, 1),
    }


def _joined(specs: Sequence[str], reading: Reading) -> Cases | None:
    found = [cases(spec, reading) for spec in specs]
    return None if not found else Cases(" + ".join(specs), [each for one in found for each in one.loaders])


def _open(lesson: Lesson) -> None:
    """Make OUT, or make sure that it holds this very training."""
    settings, wanted = lesson.out / SETTINGS, lesson.settings()
    if not settings.exists():
        lesson.out.mkdir(parents=True, exist_ok=True)
        durable.replace(settings, lambda file: file.write(json.dumps(wanted, indent=1).encode()))
        return
    if not lesson.resume:
        raise CannotDo(f"{lesson.out}: holds a training already; --resume goes on with it, another --out begins anew")
    if (kept := json.loads(settings.read_text(encoding="utf-8"))) != wanted:
        differing = ", ".join(sorted(key for key in wanted if kept.get(key) != wanted[key]))
        raise CannotDo(f"{lesson.out}: holds a training with another {differing}; choose another --out")


def _prepared(found: Cases | None, preset: Preset, what: str) -> list[Example]:
    from engines.fdg_segmentation.preprocessing import example

    if found is None:
        return []
    return [example(case, preset.spacing_mm) for case in watched(found, what, len(found))]


def _start(lesson: Lesson, preset: Preset, prepared: Sequence[Example]) -> Tensors | None:
    """Weights that were given, those of pre-training on the same cases, or none."""
    from engines.fdg_segmentation.train import pretrain_on

    if lesson.start is not None:
        weights = models.load(lesson.start)
        if weights.card.engine != lesson.engine:
            raise WeightsRefused(f"--start: expected weights of {lesson.engine}, got {weights.card.engine}")
        return weights.tensors
    if lesson.scratch:
        return None
    with _run(lesson, "pretrain", preset.pretraining.steps) as run:
        return pretrain_on(prepared, preset, run).tensors


def _card(lesson: Lesson, preset: Preset, counts: tuple[int, int], trained: Trained) -> Card:
    """Paths stay out of it: they may name patients."""
    arguments = {key: value for key, value in preset.network.arguments.items() if key != "apart"}
    about_images = {"spacing_mm": list(preset.spacing_mm), "patch": list(preset.drawing.patch)}
    best = trained.history.scores.get(str(trained.history.best_step))
    measured = (
        {} if best is None else {"tune_dice": {"mean": best, "n": counts[1], "at_step": trained.history.best_step}}
    )
    begun = "scratch" if lesson.scratch else "given weights" if lesson.start else "pre-training on the same cases"
    learned = f"{counts[0]} cases of {_named(lesson.learn)}"
    return Card(
        engine=lesson.engine,
        architecture=Architecture(preset.network.name, {**arguments, **about_images}),
        data=f"{learned}, from {begun}; chosen by {counts[1]} of {_named(lesson.tune)}",
        commit=f"tracerd {TRACERD_VERSION}",
        seed=lesson.seed,
        metrics=measured,
        intended_use=models.RESEARCH_ONLY,
        created=utc_now().replace(microsecond=0),
    )


def _named(specs: Sequence[str]) -> str:
    return (
        " and ".join(spec if spec.startswith("cohort:") else f"a {spec.partition(':')[0]} source" for spec in specs)
        or "none"
    )


@contextmanager
def _run(lesson: Lesson, part: str, steps: int) -> Iterator[Run]:
    """A run in OUT/PART that Ctrl-C or SIGTERM ends between two steps."""
    from engines.training import Run

    asked = Event()

    def stop(*_: object) -> None:
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = lesson.out / part
    folder.mkdir(exist_ok=True)
    try:
        with progress(part, steps) as say:
            yield Run(lesson.seed, folder, device=lesson.device, should_stop=asked.is_set, say=say)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(what: str, steps: int) -> Iterator[Callable[[str], None]]:
    """Where a run tells how far it is: a bar on a terminal, else a line each time, on standard error."""
    if not sys.stderr.isatty():
        yield lambda line: _write(f"{what}: {line}\n")
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<48}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps)

        def say(line: str) -> None:
            step = _STEP.match(line)
            bar.update(task, description=f"{what}: {line}"[:48], completed=int(step[1]) if step else None)

        yield say


def _write(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


def evaluate(name: str, specs: Sequence[str], weights: Path | None, reading: Reading) -> dict[str, Any]:
    """Run an engine over cases with a truth and score it; cases without one are counted and left out.

    Raises
    ------
    CannotDo
        No case has a truth.
    engines.errors.EngineError
        As sources and the engine; a refusal of a single case is part of the answer.
    """
    method = runnable(name, weights)
    if name not in FINDING_LESIONS:
        raise NoEngine(f"engine {name}: expected one that finds lesions, {', '.join(sorted(FINDING_LESIONS))}")
    if weights is not None and models.card_of(weights).start_only:
        raise WeightsRefused(
            f"{weights.name}: expected weights for results, got a start for training", code="start-only"
        )
    from engines.fdg_segmentation.evaluate import Report
    from engines.fdg_segmentation.evaluate import evaluate as scored

    found = _joined(specs, reading)
    scores: list[Score] = []
    unlabelled = 0
    for case in watched(found or (), "evaluating", len(found or ())):
        if case.truth is None:
            unlabelled += 1
            continue
        scores += scored(method, [case]).scores
    if not scores:
        raise CannotDo("--cases: expected cases that somebody drew tumours in, got none with a truth")
    document: dict[str, Any] = _plain(
        {
            "engine": name,
            "weights_sha256": method.weights_sha256,
            "cases": list(specs),
            "without_truth": unlabelled,
            "summary": Report(tuple(scores)).summary(),
            "studies": [asdict(score) for score in scores],
        }
    )
    return document


def _plain(value: Any) -> Any:
    """As JSON has it: a number that is not defined is null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
