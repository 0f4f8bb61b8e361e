"""The log: a line on stderr for each event, as `key=value` for people or as JSON for collectors.

Modules log as any Python library does, with fields as `extra`; only here is it said how that looks. No line has an account
id, a token or anything else that a caller sent: whose quota was changed by whom stands in the audit log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

from structlog.processors import JSONRenderer, LogfmtRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

_HANDLER: Final = logging.StreamHandler(sys.stderr)
FIRST: Final = ("time", "level", "logger", "event")


def write_logs(level: str, format: str) -> None:
    """Write what is logged from now on, `level` and above, as `text` or `json`. Called again, the later call holds."""
    _HANDLER.setFormatter(_formatter(format))
    root = logging.getLogger()
    root.addHandler(_HANDLER)  # which does nothing the second time
    root.setLevel(level.upper())


def _formatter(format: str) -> ProcessorFormatter:
    render: Sequence[Processor] = (
        (_in_order, JSONRenderer(ensure_ascii=False))
        if format == "json"
        else (_joined, LogfmtRenderer(key_order=FIRST))
    )
    return ProcessorFormatter(
        foreign_pre_chain=[add_log_level, add_logger_name, ExtraAdder(), TimeStamper(fmt="iso", utc=True, key="time")],
        processors=[ProcessorFormatter.remove_processors_meta, format_exc_info, *render],
    )


def _in_order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {**{key: event[key] for key in FIRST}, **event}


def _joined(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Lists as people write them."""
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value for key, value in event.items()
    }
