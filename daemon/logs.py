"""JSON log lines on stderr: what, which row, how long. Never patient data and never a UID.

Rows are named by their numbers (study=12, job=7): whoever may see patients looks them up in the database.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings

import structlog


def configure(*, level: int = logging.INFO) -> None:
    """Send structlog's lines to stderr as JSON and silence libraries that print identifiers at info level."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    for name in ("pynetdicom", "pydicom", "highdicom", "distributed", "asyncio", "apscheduler", "uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # pydicom's warnings quote the irregular values they are about
    warnings.filterwarnings("ignore", module="pydicom")


def frames(error: BaseException) -> list[str]:
    """Where an exception came from, without its text: messages and local variables may quote patient data."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
