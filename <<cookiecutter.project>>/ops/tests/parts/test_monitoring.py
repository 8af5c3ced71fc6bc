"""Which alerts a report names."""

from ops.parts import monitoring


def test_alerts_that_fire():
    alerts = [
        {"state": "firing", "labels": {"alertname": "Watchdog"}},
        {"state": "pending", "labels": {"alertname": "DiskAlmostFull"}},
    ]
    assert monitoring.judge_alerts({"data": {"alerts": alerts}}).status == "ok"
    alerts.append({"state": "firing", "labels": {"alertname": "InstanceDown"}})
    assert monitoring.judge_alerts({"data": {"alerts": alerts}}).detail == "alerts: InstanceDown"
