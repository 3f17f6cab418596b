"""`tracerd status`, `jobs …`, `conflicts …`, `destinations …`: what a node did, and what a person decides about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from daemon.terminal import NODE_YAML, Config, Json, print_json, read_settings
from db.states import JobState

if TYPE_CHECKING:
    from daemon.ask import Request

JobNumber = Annotated[int, typer.Argument(metavar="JOB", help="Number of the job, as `tracerd jobs list` shows it.")]
DestinationName = Annotated[str, typer.Argument(metavar="NAME", help="Its name in the configuration.")]
SeriesNumber = Annotated[
    int, typer.Argument(metavar="SERIES", help="Number of the series, as `tracerd conflicts list` shows it.")
]
Because = Annotated[str, typer.Option("--because", help="Why; kept in the history for good.", metavar="TEXT")]

jobs = typer.Typer(help="Jobs: what ran, what waits for a person, what failed.", no_args_is_help=True)
destinations = typer.Typer(help="Destinations: what waits for them; stop and go on.", no_args_is_help=True)
conflicts = typer.Typer(help="Copies that came under one UID with different content.", no_args_is_help=True)


def _ask(config: Path, request: Request) -> Any:
    from daemon.ask import ask

    return ask(read_settings(config), request)


def status(config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Count what the node holds, whether it runs or not."""
    from daemon import commands
    from daemon.ask import Request, is_running
    from daemon.show import show_status

    counts = _ask(config, Request("GET", "/status", commands.status))
    counts = {"running": is_running(read_settings(config)), **counts}
    print_json(counts) if as_json else show_status(counts)


@jobs.command("list", epilog="Example:  tracerd jobs list --state held")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, metavar="N")] = 100,
    config: Config = NODE_YAML,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: Json = False,
) -> None:
    """List the newest jobs, one line each."""
    from daemon import commands
    from daemon.ask import Request
    from daemon.show import show_jobs

    most = None if everything else limit
    route = f"/jobs?limit={most or 0}" + (f"&state={state}" if state is not None else "")
    found = _ask(config, Request("GET", route, lambda turn: commands.list_jobs(turn, state=state, limit=most)))
    print_json(found) if as_json else show_jobs(found)


@jobs.command("show", epilog="Example:  tracerd jobs show 7")
def show(job: JobNumber, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Show one job: why it is where it is, what it found, every attempt, delivery and decision."""
    from daemon import commands
    from daemon.ask import Request
    from daemon.show import show_job

    request = Request("GET", f"/jobs/{job}", lambda turn: commands.describe_job(turn, commands.job_row(turn, job)))
    found = _ask(config, request)
    print_json(found) if as_json else show_job(found)


@jobs.command("retry", epilog="Example:  tracerd jobs retry 7")
def retry(job: JobNumber, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Give a dead job its attempts back, or send the stored results of a finished one again, byte for byte."""
    _act(config, job, "retry", as_json=as_json)


@jobs.command("resend", epilog="Example:  tracerd jobs resend 7 --to archive")
def resend(
    job: JobNumber,
    to: Annotated[
        str | None, typer.Option("--to", help="Only there; any configured destination.", metavar="NAME")
    ] = None,
    config: Config = NODE_YAML,
    *,
    as_json: Json = False,
) -> None:
    """Send the stored results of a finished job once more, byte for byte, whatever became of them the first time."""
    _act(config, job, "resend", to=to, as_json=as_json)


@jobs.command("rerun", epilog="Example:  tracerd jobs rerun 7")
def rerun(job: JobNumber, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Compute a finished job again; the results get new UIDs and say that they replace the old ones."""
    _act(config, job, "rerun", as_json=as_json)


@jobs.command("release", epilog='Example:  tracerd jobs release 7 --because "weight confirmed by phone"')
def release(job: JobNumber, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Let a held job run, or let its held results leave the node."""
    _act(config, job, "release", because, as_json=as_json)


@jobs.command("cancel", epilog="Example:  tracerd jobs cancel 7")
def cancel(job: JobNumber, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Stop a job for good, also one that runs."""
    _act(config, job, "cancel", as_json=as_json)


def _act(config: Path, job: int, action: str, because: str = "", *, to: str | None = None, as_json: bool) -> None:
    """Give an order about a job and show the job as it is afterwards."""
    from daemon import control
    from daemon.ask import Request, actor
    from daemon.show import console

    body = control.Because(actor=actor(), because=because, to=to)
    request = Request(
        "POST",
        f"/jobs/{job}/{action}",
        lambda turn: control.act_on_job(turn, job, action, body),
        body.model_dump(),
    )
    done = _ask(config, request)
    if as_json:
        print_json(done)
    elif done["id"] == job:
        console().print(f"Job {job} is {done['state']} now.")
    else:
        console().print(f"Job {done['id']} computes it again and is {done['state']} now.")


@conflicts.command("list", epilog="Example:  tracerd conflicts list")
def list_conflicts(config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """List series that hold copies which contradict each other, and in what."""
    from daemon import commands
    from daemon.ask import Request
    from daemon.show import show_conflicts

    found = _ask(config, Request("GET", "/conflicts", commands.list_conflicts))
    print_json(found) if as_json else show_conflicts(found)


@conflicts.command("accept", epilog='Example:  tracerd conflicts accept 4 --because "corrected weight"')
def accept(series: SeriesNumber, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Let the newest copies replace the current ones; the rules are asked again."""
    _decide(config, series, "accept", because, as_json=as_json)


@conflicts.command("discard", epilog='Example:  tracerd conflicts discard 4 --because "sent by mistake"')
def discard(series: SeriesNumber, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Set the newer copies aside (their bytes are kept); held jobs go on with what came first."""
    _decide(config, series, "discard", because, as_json=as_json)


def _decide(config: Path, series: int, action: str, because: str, *, as_json: bool) -> None:
    from daemon import commands
    from daemon.ask import Request, actor
    from daemon.show import console

    decide = {"accept": commands.accept_conflict, "discard": commands.discard_conflict}[action]
    body = {"actor": actor(), "because": because}
    request = Request(
        "POST", f"/conflicts/{series}/{action}", lambda turn: decide(turn, series, because=because, actor=actor()), body
    )
    done = _ask(config, request)
    if as_json:
        print_json(done)
    else:
        console().print(f"Series {series}: {done.get('accepted', done.get('discarded'))} copies {action}ed.")


@destinations.command("list", epilog="Example:  tracerd destinations list")
def list_destinations(config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """List every destination: what it has to prove, whether it is paused, and what waits for it."""
    from daemon import commands
    from daemon.ask import Request
    from daemon.show import show_destinations

    found = _ask(config, Request("GET", "/destinations", commands.list_destinations))
    print_json(found) if as_json else show_destinations(found)


@destinations.command("pause", epilog='Example:  tracerd destinations pause pacs --because "PACS update tonight"')
def pause(name: DestinationName, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Send nothing there until it is resumed, also after a restart; results wait."""
    _direct(config, name, "pause", because, as_json=as_json)


@destinations.command("resume", epilog="Example:  tracerd destinations resume pacs")
def resume(name: DestinationName, because: Because = "", config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Let a paused destination go on with what waits for it."""
    _direct(config, name, "resume", because, as_json=as_json)


def _direct(config: Path, name: str, action: str, because: str, *, as_json: bool) -> None:
    from daemon import control
    from daemon.ask import Request, actor
    from daemon.show import console

    body = control.Because(actor=actor(), because=because)
    request = Request(
        "POST",
        f"/destinations/{quote(name, safe='')}/{action}",
        lambda turn: control.act_on_destination(turn, name, action, body),
        body.model_dump(),
    )
    done = _ask(config, request)
    if as_json:
        print_json(done)
    else:
        console().print(f"{done['name']} is {'paused' if done['paused'] else 'sent to'} now.")
