"""One JSON object a line on standard output, for our own events and for those of libraries."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger


def request_id() -> str:
    """The id of the request that is being served; empty outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def configure(service: str, level: str = "info") -> None:
    """Send everything that is logged in this process to standard output.

    Args:
        service: value of the field `service`.
        level: debug, info, warning or error.
    """

    def named(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        head = {name: event.pop(name) for name in ("time", "level")}
        return {**head, "service": service, "event": event.pop("event", ""), **event}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        named,
        structlog.processors.format_exc_info,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(default=str)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # Informational messages of libraries repeat our own, or are of no use in operation.
    for noisy in ("uvicorn", "uvicorn.error", "httpx", "httpcore", "aio_pika", "aiormq", "alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)


def get(name: str = "") -> Any:
    """A structured logger."""
    return structlog.get_logger(name)
