"""A destination, whatever it speaks: results are sent to it, looked for there and fetched back.

What speaks HTTP is imported with the first destination that does: a node without one starts sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from config.destinations import AnyDestination, WebDestination
from dicom_io import query, sender
from dicom_io.query import Wanted
from dicom_io.sender import Outgoing, Sent


def send(files: Sequence[Outgoing], destination: AnyDestination) -> Iterator[Sent]:
    """As `sender.send` or `dicomweb.store`."""
    if isinstance(destination, WebDestination):
        from dicom_io import dicomweb

        return dicomweb.store(files, destination)
    return sender.send(files, destination)


def find(destination: AnyDestination, wanted: Sequence[Wanted]) -> set[str]:
    """As `query.find` or `dicomweb.find`."""
    if isinstance(destination, WebDestination):
        from dicom_io import dicomweb

        return dicomweb.find(destination, wanted)
    return query.find(destination, wanted)


def fetch(destination: AnyDestination, wanted: Sequence[Wanted], folder: Path) -> dict[str, Path]:
    """As `query.fetch` or `dicomweb.fetch`."""
    if isinstance(destination, WebDestination):
        from dicom_io import dicomweb

        return dicomweb.fetch(destination, wanted, folder)
    return query.fetch(destination, wanted, folder)


def greet(destination: AnyDestination) -> tuple[str, float]:
    """What it was asked for, C-ECHO or a search, and how long the answer took [s]; raises as `find`."""
    if isinstance(destination, WebDestination):
        from dicom_io import dicomweb

        return "QIDO-RS", dicomweb.ask_for_studies(destination)
    return "C-ECHO", sender.echo(destination)
