"""`tracerd models …`: which weights the node has, where they came from, and which of them its jobs use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from daemon.terminal import NODE_YAML, Config, Json, print_json, read_settings

if TYPE_CHECKING:
    from daemon.ask import Request

models = typer.Typer(help="Models: weights, their cards, and which of them jobs use.", no_args_is_help=True)

Digest = Annotated[
    str, typer.Argument(metavar="SHA256", help="The model's digest, or enough of its beginning (6 characters or more).")
]
EngineName = Annotated[str, typer.Argument(metavar="ENGINE", help="Name of an engine, such as fdg_segmentation.")]
Because = Annotated[str, typer.Option("--because", help="Why; kept in the history for good.", metavar="TEXT")]


def _ask(config: Path, request: Request) -> Any:
    from daemon.ask import ask

    return ask(read_settings(config), request)


@models.command("list", epilog="Example:  tracerd models list --engine fdg_segmentation")
def list_models(
    engine: Annotated[str | None, typer.Option(help="Only those of this engine.", metavar="ENGINE")] = None,
    config: Config = NODE_YAML,
    *,
    as_json: Json = False,
) -> None:
    """List the node's models. An engine without a champion uses the weights it is shipped with."""
    from daemon import promotion
    from daemon.ask import Request
    from daemon.show_models import show_models

    route = "/models" if engine is None else f"/models?engine={quote(engine, safe='')}"
    found = _ask(config, Request("GET", route, lambda turn: promotion.list_models(turn, name=engine)))
    print_json(found) if as_json else show_models(found)


@models.command("show", epilog="Example:  tracerd models show 3fa81c")
def show(digest: Digest, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Show one model: its card, what it was trained on, how good it was, and every decision about it."""
    from daemon import promotion
    from daemon.ask import Request
    from daemon.show_models import show_model

    request = Request("GET", f"/models/{quote(digest, safe='')}", lambda turn: promotion.describe(turn, digest))
    found = _ask(config, request)
    print_json(found) if as_json else show_model(found)


@models.command(
    "import",
    epilog="Example:  tracerd models import swin_mae_best_v2.pth --architecture swin-75m",
)
def import_(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="NAME.safetensors with its card, a .pth, or a results folder of nnU-Net."),
    ],
    engine: Annotated[
        str, typer.Option(help="Whose network it is; of safetensors the card says it.", metavar="ENGINE")
    ] = "fdg_segmentation",
    architecture: Annotated[
        str | None,
        typer.Option(
            help="A preset of the engine, whose network the .pth must be; nnU-Net's plans say it.", metavar="NAME"
        ),
    ] = None,
    *,
    fold: Annotated[str, typer.Option(help="Of a results folder of nnU-Net: 0 to 4, or all.", metavar="N")] = "0",
    key: Annotated[
        str | None, typer.Option(help="Entry of a .pth that holds the network, where it has several.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Only write NAME.safetensors and its card; no node is asked.", metavar="FILE")
    ] = None,
    config: Config = NODE_YAML,
    as_json: Json = False,
) -> None:
    """Take weights in as a candidate. Each tensor is compared with the network's; nothing is ever unpickled."""
    from daemon.importing import Wanted, import_weights
    from daemon.show_models import show_imported, show_model

    wanted = Wanted(path, engine, architecture, fold=fold, key=key)
    done = import_weights(wanted, out, None if out is not None else read_settings(config))
    if as_json:
        print_json(done)
    else:
        show_imported(done) if out is not None else show_model(done)


@models.command("promote", epilog='Example:  tracerd models promote 3fa81c --because "Dice 0.81 on our 40 cases"')
def promote(digest: Digest, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Move a model one step up: candidate → shadow → champion. New jobs use the champion; the old one is retired."""
    done = _act(config, digest, "promote", because)
    if as_json:
        print_json(done)
    else:
        _say(f"Model {done['sha256'][:12]} of {done['engine']} is {done['state']} now.")


@models.command("rollback", epilog='Example:  tracerd models rollback fdg_segmentation --because "misses small nodes"')
def rollback(engine: EngineName, because: Because, config: Config = NODE_YAML, *, as_json: Json = False) -> None:
    """Go back to the champion before, or to the weights the engine is shipped with."""
    done = _act(config, engine, "rollback", because)
    if as_json:
        print_json(done)
    else:
        used = done["weights_sha256"]
        _say(f"{done['engine']} uses the weights {used[:12] if used else 'it is shipped with'} now.")


def _act(config: Path, name: str, action: str, because: str) -> Any:
    from daemon import control
    from daemon.ask import Request, actor

    body = control.Because(actor=actor(), because=because)
    route = f"/models/{quote(name, safe='')}/{action}"
    request = Request("POST", route, lambda turn: control.act_on_model(turn, name, action, body), body.model_dump())
    return _ask(config, request)


def _say(line: str) -> None:
    from daemon.show import console

    console().print(line)
