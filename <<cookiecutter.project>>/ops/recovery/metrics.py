"""What Prometheus reads of this part, in its text format, served by the WAL receiver on port 8000."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

PORT = 8000
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Metric:
    """A metric with its samples: values by labels."""

    name: str
    words: str
    kind: Literal["gauge", "counter"] = "gauge"
    samples: tuple[tuple[Mapping[str, str], float], ...] = field(default=())


def render(metrics: Iterable[Metric]) -> str:
    """The page."""
    lines = []
    for each in metrics:
        lines += [f"# HELP {each.name} {each.words}", f"# TYPE {each.name} {each.kind}"]
        for labels, value in each.samples:
            text = ",".join(f'{name}="{said.translate(_ESCAPES)}"' for name, said in labels.items())
            lines.append(f"{each.name}{{{text}}} {value}" if text else f"{each.name} {value}")
    return "\n".join(lines) + "\n"


def serve(collect: Callable[[], Iterable[Metric]], port: int = PORT) -> http.server.ThreadingHTTPServer:
    """Answer with what `collect` gives at each request, from a thread of its own."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/metrics"
            body = render(collect()).encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a scrape every few seconds is no event."""

    server = http.server.ThreadingHTTPServer(("", port), Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
