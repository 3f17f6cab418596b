"""The command line: `tracerd COMMAND`. Exit status 0 done, 1 failed, 2 wrong usage or configuration.

With `--json` standard output carries one JSON document and nothing else; logs and complaints go to standard error.
What a command needs is imported inside it, so that help is there at once.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from daemon import cli_jobs, cli_learn, cli_models
from daemon.terminal import (
    FAILED,
    NODE_YAML,
    Config,
    Json,
    complain,
    expected_errors,
    print_json,
    read_settings,
    watched,
)

PR_SET_PDEATHSIG = 1

Zone = Annotated[
    str, typer.Option(help="IANA zone of the scanner's clock, for times without an offset from UTC.", metavar="ZONE")
]
DicomPaths = Annotated[list[Path], typer.Argument(metavar="PATH…", help="DICOM files or folders of them.")]

app = typer.Typer(
    name="tracerd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
rules = typer.Typer(help="Rules: why a study went where it went, and what other rules would do.", no_args_is_help=True)
app.add_typer(cli_jobs.jobs, name="jobs")
app.add_typer(cli_jobs.conflicts, name="conflicts")
app.add_typer(cli_jobs.destinations, name="destinations")
app.add_typer(cli_models.models, name="models")
app.add_typer(rules, name="rules")


class Part(StrEnum):
    """A part of the node that can run by itself."""

    LISTENER = "listener"
    NODE = "node"


class Device(StrEnum):
    """Where an engine computes."""

    CPU = "cpu"
    CUDA = "cuda"


class Kind(StrEnum):
    """A kind of simulated examination, as engines/simulation/study.py has them."""

    FDG = "fdg"
    PSMA = "psma"
    RB82_REST = "rb82-rest"
    RB82_STRESS = "rb82-stress"
    LOWCOUNT = "lowcount"
    NAC = "nac"


class Preset(StrEnum):
    """A size of simulated scanner."""

    SMALL = "small"
    STANDARD = "standard"


class Maker(StrEnum):
    """Whose way of writing a simulated scanner follows."""

    SIEMENS = "siemens"
    GE = "ge"
    PHILIPS = "philips"


@app.callback()
def prepare() -> None:
    """A DICOM node for PET: receives studies, routes them by tracer and protocol, sends SEG and reports back."""
    from daemon import logs

    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom|highdicom")  # they quote header values
    logs.configure(level=logging.WARNING)


@app.command(epilog="Example:  tracerd demo --out demo-out")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for DICOM results and pages.", metavar="DIR")] = Path("demo-out"),
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the node's data folder and log.")] = False,
) -> None:
    """Run a whole node on simulated PET/CT studies over real DICOM sockets and show what it did (about a minute)."""
    from daemon.demo import run_demo

    run_demo(out, keep=keep)


@app.command(epilog="Example:  tracerd serve --config /etc/tracerd/node.yaml")
def serve(
    config: Config = NODE_YAML,
    only: Annotated[Part | None, typer.Option(help="Run one half of the node (two system services).")] = None,
    *,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
) -> None:
    """Run the node until SIGTERM or Ctrl-C. The configuration is checked first; with a fault nothing starts."""
    from daemon import logs

    if attached:
        die_with_parent()
    logs.configure()
    if only is Part.LISTENER:
        from dicom_io import listener

        settings = read_settings(config)
        listener.serve(settings, settings.data)
        return
    from daemon import app as node
    from daemon.check import sound_settings

    raise typer.Exit(node.serve(sound_settings(config), config, with_listener=only is None))


def die_with_parent() -> None:
    """End at once when the process that started us ends, however it ends (prctl(2), Linux)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(FAILED)


@app.command(epilog="Example:  tracerd check --config node.yaml")
def check(config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Report every fault of a configuration at once: keys, values, engines, parameters, the rules' own tests."""
    from daemon.check import sound_settings
    from daemon.show import show_settings
    from engines.registry import ENGINES, is_planned

    settings = sound_settings(config)
    facts = {
        "config": str(config),
        "data": str(settings.data.resolve()),
        "doors": [f"{door.host}:{door.port}" for door in settings.listener.doors],
        "peers": len(settings.peers),
        "destinations": sorted(settings.destinations),
        "rules": [rule.name for rule in settings.rules],
        "rules_sha256": settings.rules_sha256(),
        "rule_tests": sum(len(rule.tests) for rule in settings.rules),
        "engines": sorted(ENGINES),
        "without_engine": [rule.name for rule in settings.rules if is_planned(rule.engine)],
    }
    print_json(facts) if as_json else show_settings(facts)


@app.command(epilog="Example:  tracerd conformance --config node.yaml > conformance.md")
def conformance(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="With the values of this node beside the defaults.", metavar="FILE"),
    ] = None,
) -> None:
    """Print the DICOM conformance statement (PS3.2 Annex N) in Markdown, its tables made from the program itself."""
    from daemon.conformance import statement

    sys.stdout.write(statement(None if config is None else read_settings(config)))


@app.command(epilog="Example:  tracerd inspect /data/study1 --json")
def inspect(paths: DicomPaths, timezone: Zone = "UTC", *, as_json: Json = False) -> None:
    """Say what each series is: tracer, kind, attenuation correction, completeness, geometry, SUV."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process of one thread can start readers as its copies
    from daemon.inspection import show_inspection
    from dicom_io.folder import collect, files_below, sandbox_for
    from dicom_io.inspect import inspection

    zone, files = time_zone(timezone), files_below(paths)
    with sandbox_for(len(files)) as sandbox:
        document = inspection(collect(files, sandbox, partial(watched, what="reading", total=len(files))), zone)
    print_json(document) if as_json else show_inspection(document)
    if not document["series"]:
        sys.stderr.write("tracerd: no DICOM series there\n")
        raise typer.Exit(FAILED)


@app.command(epilog="Example:  tracerd run threshold_segmentation /data/study1 --out results --device cpu")
def run(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="Name of an engine; `tracerd check` lists them.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of DICOM files: one study.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; made where it is missing.", metavar="DIR")],
    *,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="As in `parameters:` of a rule; several times for several.", metavar="NAME=VALUE"),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where a learned engine computes.")] = Device.CPU,
    weights: Annotated[
        Path | None,
        typer.Option(help="Of a learned engine, instead of those it is shipped with.", metavar="FILE.safetensors"),
    ] = None,
    timezone: Zone = "UTC",
    as_json: Json = False,
) -> None:
    """Run one engine on a folder of DICOM without a node; the results are DICOM files."""
    from daemon.offline import Run, parameters_of, run_engine
    from daemon.show import show_run

    parameters = parameters_of(parameter or [])
    outcome = run_engine(Run(engine, path, out, parameters, time_zone(timezone), device, weights))
    print_json(outcome) if as_json else show_run(outcome)


@app.command(epilog="Example:  tracerd simulate fdg --out study --seed 7 --truth study/truth")
def simulate(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=f"One of {', '.join(Kind)}.")],
    out: Annotated[Path, typer.Option(help="Folder for the DICOM files; takes one study.", metavar="DIR")],
    seed: Annotated[int, typer.Option(min=0, help="Another number is another patient.", metavar="N")] = 1,
    preset: Annotated[Preset, typer.Option(help="Voxels of about 5 mm, or of about 3.5 mm.")] = Preset.SMALL,
    truth: Annotated[Path | None, typer.Option(help="Folder for the truth: NIfTI and JSON.", metavar="DIR")] = None,
    *,
    share: Annotated[
        float | None, typer.Option(help="Of the counts, lowcount only; drawn from the seed unless given.", metavar="F")
    ] = None,
    maker: Annotated[Maker, typer.Option(help="Whose scanner the headers are like.")] = Maker.SIEMENS,
    as_json: Json = False,
) -> None:
    """Simulate an examination: DICOM files as a scanner sends them, and the truth (small: about half a minute).

    rb82-rest and rb82-stress of one seed are one study and may share a folder.
    """
    # the matrices of a body are small and many: a numerical library's own threads make it several times slower
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from daemon.simulate import Wanted, run_simulation, show_simulation

    try:
        wanted = Wanted(
            kind=kind.value, seed=seed, preset=preset.value, out=out, truth=truth, share=share, maker=maker.value
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    outcome = run_simulation(wanted)
    print_json(outcome) if as_json else show_simulation(outcome)


@app.command(epilog="Example:  tracerd send /data/study1 --to 10.1.2.9:104 --aet PACS")
def send(
    paths: DicomPaths,
    to: Annotated[str, typer.Option("--to", help="Address and port of the peer.", metavar="HOST:PORT")],
    aet: Annotated[str, typer.Option("--aet", help="AE title of the peer.", metavar="AE")],
    calling: Annotated[str, typer.Option(help="Our own AE title.", metavar="AE")] = "TRACERD",
    *,
    as_json: Json = False,
) -> None:
    """Send DICOM files to a peer by C-STORE, byte for byte as they are."""
    from pydantic import ValidationError

    from config.destinations import DimseDestination
    from config.faults import translate
    from daemon.show import show_transfer
    from daemon.transfer import send_files

    host, _, port = to.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter("expected HOST:PORT, such as 10.1.2.9:104", param_hint="--to")
    try:
        peer = DimseDestination(host=host.strip("[]"), port=int(port), ae_title=aet, calling_ae_title=calling)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(map(str, translate(error, DimseDestination)))) from error
    outcome = send_files(paths, peer)
    print_json(outcome) if as_json else show_transfer(outcome)
    if outcome["failed"]:
        raise typer.Exit(FAILED)


@app.command(epilog="Example:  tracerd doctor --config node.yaml")
def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Look at this node too.", metavar="FILE")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Look for what would keep a node from working: versions, disk, clock, ports, programs."""
    from daemon.doctor import Verdict, examine
    from daemon.show import show_findings

    findings = examine(config)
    print_json([finding.to_json() for finding in findings]) if as_json else show_findings(findings)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(FAILED)


app.command(
    "train",
    epilog="Example:  tracerd train fdg_segmentation --cases cohort:fdg-train --tune cohort:fdg-tune --out trained",
)(cli_learn.train)
app.command(
    "evaluate",
    epilog="Example:  tracerd evaluate threshold_segmentation --cases dicom:/data/studies --json",
)(cli_learn.evaluate)
app.command("status", epilog="Example:  tracerd status --config node.yaml")(cli_jobs.status)


@rules.command("explain", epilog="Example:  tracerd rules explain /data/study1 --config node.yaml")
def explain(
    study: Annotated[
        str, typer.Argument(metavar="PATH|STUDY_UID", help="A folder of DICOM files, or a study the node holds.")
    ],
    config: Config = NODE_YAML,
    *,
    as_json: Json = False,
) -> None:
    """Show what every rule says about a study: each clause, what it saw, and its answer."""
    from daemon.explain import explain_study
    from daemon.show import show_explanation

    explanation = explain_study(study, read_settings(config))
    print_json(explanation) if as_json else show_explanation(explanation)


@rules.command("replay", epilog="Example:  tracerd rules replay --rules new.yaml --config node.yaml")
def replay(
    new: Annotated[Path, typer.Option("--rules", help="Rules to try: a list, or a configuration.", metavar="FILE")],
    config: Config = NODE_YAML,
    *,
    as_json: Json = False,
) -> None:
    """Show which stored studies other rules would treat differently; nothing is changed."""
    from daemon.explain import replay_rules
    from daemon.show import show_changes

    changes = replay_rules(read_settings(config), new)
    print_json(changes) if as_json else show_changes(changes)


def time_zone(name: str) -> ZoneInfo:
    """The zone of that name; wrong usage where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError) as error:
        raise typer.BadParameter(f"expected an IANA zone such as Europe/Berlin, got {name}") from error


def main() -> None:
    """Console script: errors that are told in words end here, defects keep their traceback."""
    try:
        app()
    except expected_errors() as error:
        sys.exit(complain(error))
