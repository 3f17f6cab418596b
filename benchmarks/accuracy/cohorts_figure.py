"""The picture of benchmarks/accuracy/cohorts.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"FDG": "#1f77b4", "PSMA": "#d62728", "sarcoma": "#2ca02c"}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Eight panels: label shift above, beside reality below."""
    figure, axes = plt.subplots(2, 4, figsize=(17, 8.2))
    simulated = {"FDG": result["fdg"], "PSMA": result["psma"]}
    each = {name: [row for one in group["patients"] for row in one["lesions"]] for name, group in simulated.items()}
    large = [max(one["lesions"], key=_volume) for one in result["fdg"]["patients"] if one["lesions"]]
    beside = {"FDG, largest of a patient": large}
    if result["real"] is not None:
        beside["real sarcoma"] = result["real"]["lesions"]
    by_name = {"FDG, largest of a patient": COLOURS["FDG"], "real sarcoma": COLOURS["sarcoma"]}

    _shares(axes[0, 0], {n: [_volume(r) for r in rows] for n, rows in each.items()}, COLOURS, np.logspace(-1, 3, 17))
    axes[0, 0].set(title="every lesion", xlabel="volume [mL]", ylabel="share of lesions")
    counts = {n: [len(one["lesions"]) for one in group["patients"]] for n, group in simulated.items()}
    _cumulative(axes[0, 1], counts, COLOURS)
    axes[0, 1].set(title="lesions of a patient", xlabel="lesions", xscale="symlog", xlim=(-0.2, None))
    _shares(axes[0, 2], {n: [r["suv_max"] for r in rows] for n, rows in each.items()}, COLOURS, np.logspace(0, 2, 17))
    axes[0, 2].set(title="every lesion", xlabel="SUVmax", ylabel="share of lesions")
    _noise(axes[0, 3], result["liver_nstd"])

    for axis, (name, label) in zip(
        axes[1, :3], {"volume_ml": "volume [mL]", "suv_max": "SUVmax", "contrast": "SUVmean / SUV around"}.items(),
        strict=True,
    ):  # fmt: skip
        _cumulative(axis, {n: [r[name] for r in rows if r[name] is not None] for n, rows in beside.items()}, by_name)
        axis.set(title="beside reality", xlabel=label, xscale="log")
        _plain(axis)
    _dice(axes[1, 3], result)
    figure.suptitle(
        f"{result['fdg']['studies']} FDG and {result['psma']['studies']} PSMA studies of the tune cohorts; "
        + _flows(result["rb82"]),
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _volume(row: Mapping[str, Any]) -> float:
    return float(row["volume_ml"])


def _shares(axis: Axes, groups: Mapping[str, Sequence[float]], colours: Mapping[str, str], edges: Any) -> None:
    for name, values in groups.items():
        weights = np.full(len(values), 1.0 / max(len(values), 1))
        label = f"{name}: {len(values)}, median {np.median(values):.3g}"
        axis.hist(values, edges, weights=weights, histtype="step", linewidth=1.8, color=colours[name], label=label)
    axis.set_xscale("log")
    axis.legend(fontsize=8)


def _plain(axis: Axes) -> None:
    """1, 2, 5, 10 … on a logarithmic axis: the usual labels of less than two decades run into each other."""
    axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _cumulative(axis: Axes, groups: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    for name, values in groups.items():
        label = f"{name}: {len(values)}, median {np.median(values):.3g}"
        axis.step(
            np.sort(values), (np.arange(len(values)) + 1) / len(values), where="post", color=colours[name], label=label
        )
    axis.set_ylabel("share of patients up to this")
    axis.set_ylim(0, 1.02)
    axis.legend(fontsize=8)


def _noise(axis: Axes, nstd: Mapping[str, Sequence[float]]) -> None:
    shares = sorted(nstd, key=float)
    for patient in zip(*(nstd[share] for share in shares), strict=True):
        axis.loglog([100 * float(share) for share in shares], patient, "o-", color="grey", markersize=3, linewidth=1)
    full = float(np.mean(nstd["1"]))
    axis.loglog([1, 100], [full * 10, full], "k--", linewidth=1, label="∝ 1/√counts")
    axis.set(title="noise of the liver, a line a patient", xlabel="counts [%]", ylabel="SD / mean")
    axis.legend(fontsize=8)


def _dice(axis: Axes, result: Mapping[str, Any]) -> None:
    groups = {"simulated, cut": (result["fdg"]["methods_cut"], COLOURS["FDG"])}
    if result["real"] is not None:
        groups["real sarcoma"] = (result["real"]["methods"], COLOURS["sarcoma"])
    groups["simulated, whole body"] = (result["fdg"]["methods_whole_body"], "#aec7e8")
    labels = list(result["fdg"]["methods_cut"])
    for shift, (name, (methods, colour)) in zip((-0.25, 0.0, 0.25), groups.items(), strict=False):
        for place, label in enumerate(labels):
            dice = methods[label]["summary"].get("dice")
            if dice is None:
                axis.text(place + shift, 0.01, "refused", rotation=90, fontsize=7, ha="center", color=colour)
                continue
            error = [[dice["mean"] - dice["low"]], [dice["high"] - dice["mean"]]]
            axis.bar(place + shift, dice["mean"], 0.23, yerr=error, color=colour, label=name if place == 0 else None)
    axis.set_xticks(range(len(labels)), labels, fontsize=7)
    axis.set(title="threshold methods, 95 % interval", ylabel="Dice", ylim=(0, 1))
    axis.legend(fontsize=8)


def _flows(rows: Sequence[Mapping[str, Any]]) -> str:
    rest, stress = (np.asarray([row[state]["global"] for row in rows]) for state in ("rest", "stress"))
    parts = {"at rest": rest, "under stress": stress, "reserve": stress / rest}
    text = ", ".join(f"{name} {v.mean():.2f} ({v.min():.2f} to {v.max():.2f})" for name, v in parts.items())
    return f"flow of {len(rows)} Rb-82 patients [mL/min/g]: {text}"
