"""The loop: a step depends on seed and number alone, a broken-off run goes on exactly, the best weights win."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engines.errors import Stopped
from engines.training import CHECKPOINT, Objective, OtherRun, Run, Schedule, Validation, fit

SCHEDULE = Schedule(12, 1e-2, warm_up_steps=2, precision="float32", cycles=(7, 5))


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))


def objective() -> Objective:
    def draw(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        x = torch.from_numpy(rng.normal(size=(16, 4)).astype(np.float32))
        return {"x": x, "y": x.sum(dim=1, keepdim=True)}

    return Objective(draw, lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean())


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    results = []
    for seed in (5, 5, 6):
        model = network()
        history = fit(model, objective(), SCHEDULE, Run(seed, say_every=4))
        results.append((weights_of(model), history.losses))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert len(results[0][1]) == 3
    assert not same(results[0][0], results[2][0])


@pytest.mark.parametrize("broken_off_after", [1, 5, 11])
def test_a_broken_off_run_goes_on_bit_by_bit(tmp_path: Path, broken_off_after: int) -> None:
    whole = network()
    history = fit(whole, objective(), SCHEDULE, Run(5, say_every=4))
    answers = iter([False] * broken_off_after + [True])
    run = Run(5, tmp_path, say_every=4, checkpoint_every=3)
    with pytest.raises(Stopped, match=f"before step {broken_off_after} of 12"):
        fit(network(), objective(), SCHEDULE, Run(5, tmp_path, should_stop=lambda: next(answers), say_every=4))
    torch.manual_seed(99)  # another process has another state of the global generator
    went_on = network()
    later = fit(went_on, objective(), SCHEDULE, run)
    assert same(weights_of(whole), weights_of(went_on))
    assert later.losses == history.losses


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    class Killed(BaseException):
        """Nothing in the loop may catch it."""

    calls = iter(range(100))

    def killed_at_eight() -> bool:
        if next(calls) == 8:
            raise Killed
        return False

    whole, went_on = network(), network()
    fit(whole, objective(), SCHEDULE, Run(5))
    with pytest.raises(Killed):
        fit(network(), objective(), SCHEDULE, Run(5, tmp_path, should_stop=killed_at_eight, checkpoint_every=3))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    fit(went_on, objective(), SCHEDULE, Run(5, tmp_path, checkpoint_every=3))
    assert same(weights_of(whole), weights_of(went_on))


@pytest.mark.parametrize("other", ["seed", "schedule", "network"])
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, other: str) -> None:
    fit(network(), objective(), SCHEDULE, Run(5, tmp_path))
    model = nn.Linear(4, 1) if other == "network" else network()
    schedule = Schedule(13, 1e-2) if other == "schedule" else SCHEDULE
    with pytest.raises(OtherRun, match="expected the run"):
        fit(model, objective(), schedule, Run(6 if other == "seed" else 5, tmp_path))


def test_validation_keeps_the_best_weights(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    scores = iter([0.2, 0.9, 0.4, 0.9])

    def score(model: nn.Module) -> float:
        assert not model.training
        seen.append(weights_of(model))
        return next(scores)

    model = network()
    history = fit(model, objective(), SCHEDULE, Run(5, tmp_path), validation=Validation(score, every=3))
    assert history.scores == {"3": 0.2, "6": 0.9, "9": 0.4, "12": 0.9}
    assert history.best_step == 6
    assert same(weights_of(model), seen[1])
    assert not same(weights_of(model), seen[3])
    again = network()
    kept = fit(again, objective(), SCHEDULE, Run(5, tmp_path), validation=Validation(score, every=3))
    assert (kept.scores, kept.best_step, kept.losses) == (history.scores, 6, history.losses)
    assert same(weights_of(again), seen[1])


def test_the_learning_rate_rises_and_then_falls_along_a_cosine() -> None:
    schedule = Schedule(110, 1.0, last_learning_rate=0.2, warm_up_steps=10)
    assert [schedule.rate(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.rate(10) == pytest.approx(1.0)
    assert schedule.rate(60) == pytest.approx(0.6)  # half-way: the mean of both ends
    assert schedule.rate(109) == pytest.approx(0.2, abs=1e-3)


def test_a_second_cycle_begins_where_a_run_of_one_cycle_ends() -> None:
    one, two = Schedule(100, 1.0, warm_up_steps=10), Schedule(150, 1.0, warm_up_steps=10, cycles=(100, 50))
    assert [two.rate(step) for step in range(100)] == [one.rate(step) for step in range(100)]
    assert two.rate(100) == pytest.approx(1.0)
    assert two.rate(125) == pytest.approx(0.5, abs=1e-5)
    with pytest.raises(ValueError, match="150 steps together"):
        Schedule(150, 1.0, cycles=(100, 40))


def test_frozen_weights_stay_and_gradients_are_clipped() -> None:
    model = network()
    model[0].requires_grad_(False)
    before = weights_of(model)
    objective_of_a_cliff = Objective(objective().draw, lambda net, batch: 1e8 * net(batch["x"]).square().mean())
    fit(model, objective_of_a_cliff, Schedule(3, 1e-3, precision="float32"), Run(1))
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[3].weight, before["3.weight"])
    assert (model[3].weight - before["3.weight"]).abs().max() < 0.01
