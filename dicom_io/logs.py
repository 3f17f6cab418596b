"""The listener's log: JSON lines on stderr that carry codes and identifiers of ours, never what a peer sent."""

from __future__ import annotations

import sys

import structlog


def configure_logs() -> None:
    """Send structlog's lines to stderr as JSON."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
