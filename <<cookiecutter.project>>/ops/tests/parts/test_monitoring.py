"""Which alerts a report names, and whether Grafana gets its data."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ops.parts import monitoring


def test_alerts_that_fire():
    alerts = [
        {"state": "firing", "labels": {"alertname": "Watchdog"}},
        {"state": "pending", "labels": {"alertname": "DiskAlmostFull"}},
    ]
    assert monitoring.judge_alerts({"data": {"alerts": alerts}}).status == "ok"
    alerts.append({"state": "firing", "labels": {"alertname": "InstanceDown"}})
    assert monitoring.judge_alerts({"data": {"alerts": alerts}}).detail == "alerts: InstanceDown"


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (200, b'{"status": "OK"}', ("ok", "ready, its data source answers")),
        (401, b"{}", ("warn", "GRAFANA_PASSWORD is not the password that Grafana has")),
        (403, b"", ("warn", "GRAFANA_PASSWORD is not the password that Grafana has")),
        (400, b'{"message": "no such host"}', ("fail", "its data source Prometheus does not answer: no such host")),
        (502, b"Bad Gateway", ("fail", "its data source Prometheus does not answer: status 502")),
        (500, b"[]", ("fail", "its data source Prometheus does not answer: status 500")),
    ],
)
def test_grafana_is_judged_by_its_data_source(status, answer, expected):
    check = monitoring.judge_data_source(status, answer)
    assert (check.status, check.detail) == expected


def test_grafana_is_asked_about_its_data_source_as_its_administrator(env):
    (env.secrets_dir / "GRAFANA_PASSWORD").write_text("of the secret\n")
    asked = []

    class Grafana(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200 if self.path == "/api/health" or self.headers["Authorization"] else 401)
            self.end_headers()

        def log_message(self, *_args):
            pass

    with HTTPServer(("127.0.0.1", 0), Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (check,) = monitoring._page(env, "grafana", server.server_port, "/api/health")
        server.shutdown()
    login = base64.b64encode(b"admin:of the secret").decode()
    assert asked == [("/api/health", None), ("/api/datasources/uid/prometheus/health", f"Basic {login}")]
    assert (check.target, check.status) == ("grafana", "ok")
