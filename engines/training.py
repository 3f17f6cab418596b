"""The training loop of every learned engine: seeded, resumable, yielding.

What a step draws depends on the seed and on the number of the step alone, so that a run which was broken off goes on
exactly as if it had not been. Checkpoints are safetensors with JSON in their header; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engines import durable
from engines.contract import Json
from engines.errors import EngineError, Stopped

Batch = Mapping[str, Tensor]
CHECKPOINT = "checkpoint.safetensors"


class OtherRun(EngineError):
    """The folder holds the checkpoint of a run with other settings."""

    code = "other-run"
    hint = "Choose another folder, or remove the checkpoint to begin again."


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: AdamW, cosine from the first to the last learning rate, clipped gradients.

    warm_up_steps : with a learning rate that rises linearly from 0
    cycles : steps of each cosine where there are several, together all steps (Loshchilov 2017, ICLR: SGDR)
    """

    steps: int
    learning_rate: float
    last_learning_rate: float = 1e-6
    weight_decay: float = 1e-5
    clip_norm: float = 1.0
    warm_up_steps: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    cycles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.cycles and sum(self.cycles) != self.steps:
            raise ValueError(f"cycles: expected {self.steps} steps together, got {self.cycles}")

    def rate(self, step: int) -> float:
        """Learning rate of a step, the first being 0."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        began, length = 0, self.steps
        for length in self.cycles:
            if step < began + length:
                break
            began += length
        rising = self.warm_up_steps if began == 0 else 0
        done = (step - began - rising) / max(1, length - rising)
        span = self.learning_rate - self.last_learning_rate
        return self.last_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Run:
    """Where and how one training runs, none of which may change what it learns, but for the seed.

    folder : keeps the checkpoint; None = nothing is kept
    say : told the step and the running mean of the loss about once in `say_every` steps
    """

    seed: int
    folder: Path | None = None
    device: str = "cpu"
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda _: None
    checkpoint_every: int = 200
    say_every: int = 50


@dataclass(frozen=True)
class Validation:
    """A score by which the best weights are chosen, higher is better; taken every so many steps and at the end."""

    score: Callable[[nn.Module], float]
    every: int


@dataclass
class History:
    """What happened: mean loss of every block of steps, scores by step, the best step (−1 = none was scored).

    recent : losses of the block that is not full yet
    """

    losses: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    best_step: int = -1
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)

    def close_block(self) -> None:
        """The mean of the recent losses becomes one entry."""
        self.losses.append(round(float(np.mean(self.recent)), 6))
        self.recent = []


@dataclass(frozen=True)
class Objective:
    """What a step learns from, and its loss. `draw` is given the generator of that step alone."""

    draw: Callable[[np.random.Generator], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]


def fit(
    model: nn.Module, objective: Objective, schedule: Schedule, run: Run, *, validation: Validation | None = None
) -> History:
    """Train a model in place. With validation it ends with the weights of the best score, else with the last ones.

    Raises
    ------
    Stopped
        `should_stop` answered yes between two steps; the checkpoint has everything up to there.
    OtherRun
        The folder's checkpoint is of another seed, schedule or network.
    """
    model.to(run.device).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    state = _State(model, optimiser, History(), {})
    keeper = None if run.folder is None else _Keeper(run.folder, _settings(model, schedule, run.seed))
    first = 0 if keeper is None else keeper.restore(state)
    began = time.monotonic()
    for step in range(first, schedule.steps):
        if run.should_stop():
            if keeper is not None:
                keeper.keep(state, step)
            raise Stopped(f"asked to stop before step {step} of {schedule.steps}")
        _step(state, objective, schedule, run, step)
        done, last = step + 1, step + 1 == schedule.steps
        if done % run.say_every == 0 or last:
            state.history.close_block()
            run.say(f"step {done} of {schedule.steps}: loss {state.history.losses[-1]:.4f}")
        if validation is not None and (done % validation.every == 0 or last):
            _validate(state, validation, done, run)
        if keeper is not None and (done % run.checkpoint_every == 0 or last):
            state.history.seconds, began = state.history.seconds + time.monotonic() - began, time.monotonic()
            keeper.keep(state, done)
    state.history.seconds += time.monotonic() - began
    if state.best:
        model.load_state_dict(state.best)
    return state.history


@dataclass
class _State:
    model: nn.Module
    optimiser: torch.optim.AdamW
    history: History
    best: dict[str, Tensor]


def _step(state: _State, objective: Objective, schedule: Schedule, run: Run, number: int) -> None:
    """One update."""
    batch = objective.draw(np.random.default_rng((run.seed, number)))
    batch = {name: tensor.to(run.device, non_blocking=True) for name, tensor in batch.items()}
    torch.manual_seed(int(np.random.default_rng((run.seed, number, 1)).integers(2**63)))  # dropped paths
    for group in state.optimiser.param_groups:
        group["lr"] = schedule.rate(number)
    kind = torch.device(run.device).type
    with torch.autocast(kind, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
        loss = objective.loss(state.model, batch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), schedule.clip_norm)
    state.optimiser.step()
    state.history.recent.append(float(loss.detach()))


def _validate(state: _State, validation: Validation, done: int, run: Run) -> None:
    state.model.eval()
    with torch.inference_mode():
        score = validation.score(state.model)
    state.model.train()
    if not state.best or score > max(state.history.scores.values()):
        state.history.best_step = done
        state.best = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
    state.history.scores[str(done)] = score
    run.say(f"step {done}: score {score:.4f}")


def _settings(model: nn.Module, schedule: Schedule, seed: int) -> Json:
    names = json.dumps([[name, list(tensor.shape)] for name, tensor in model.state_dict().items()])
    settings = {"seed": seed, "schedule": asdict(schedule), "network": hashlib.sha256(names.encode()).hexdigest()}
    return json.loads(json.dumps(settings))  # as it will be read back: tuples are lists


@dataclass(frozen=True)
class _Keeper:
    """One checkpoint in a folder, replaced as a whole."""

    folder: Path
    settings: Json

    def keep(self, state: _State, step: int) -> None:
        """Write everything that a later process needs to go on before `step`."""
        tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        for index, moments in state.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        header = {"settings": self.settings, "step": step, "history": asdict(state.history)}
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        content = save(plain, {"run": json.dumps(header)})
        durable.replace(self.folder / CHECKPOINT, lambda file: file.write(content))

    def restore(self, state: _State) -> int:
        """Load the checkpoint if there is one; returns the step to go on with."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return 0
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if header["settings"] != self.settings:
            raise OtherRun(f"{path}: expected the run {self.settings}, got {header['settings']}")
        state.model.load_state_dict(_part(tensors, "model."))
        state.best = _part(tensors, "best.")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        groups = state.optimiser.state_dict()["param_groups"]
        state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        state.history = History(**header["history"])
        return int(header["step"])


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
