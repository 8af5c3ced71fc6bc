"""Messages that RabbitMQ has confirmed, while something happens to its nodes; and which of them are gone afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType

from tests.cluster.site import Site

CLIENT = Path(__file__).parents[1] / "stack" / "rabbit_client.py"
NODES = "rabbitmq,rabbitmq-2,rabbitmq-3"
POD = "publisher"
# Twenty a second: the brokers share two processors with everything else.
PAUSE = "0.05"


class Publishing:
    """Publishes from a pod of a node that stays, from enter to exit. taken: confirmed by the broker; missing: gone."""

    taken: set[int]
    missing: set[int]

    def __init__(self, site: Site, node: str) -> None:
        self._site, self._node = site, node

    def __enter__(self) -> Publishing:
        self._remove()
        self._site.cluster.apply(json.dumps(self._pod()))
        self._site.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")
        command = self._command("publish", "--pause", PAUSE)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            said, _ = self._process.communicate(timeout=60)
            self.taken = {int(line.split()[0]) for line in said.splitlines()}
            if error is None:
                self.missing = self.taken - set(json.loads(self._drained()))
        finally:
            self._process.kill()
            self._remove()

    def _drained(self) -> str:
        return subprocess.run(self._command("drain"), capture_output=True, text=True, check=True, timeout=120).stdout

    def _command(self, *arguments: str) -> list[str]:
        script = CLIENT.read_text(encoding="utf-8")
        inside = ("python", "-c", script, *arguments, "--nodes", NODES)
        return self._site.cluster.command("-n", self._site.namespace, "exec", "-i", POD, "--", *inside)

    def _remove(self) -> None:
        self._site.kubectl("delete", "pod", POD, "--ignore-not-found", "--grace-period=1")

    def _pod(self) -> dict[str, object]:
        """A pod of the api's image that may speak to the brokers and has their administrator's password."""
        (api, *_) = self._site.pods("api")
        (container,) = api["spec"]["containers"]
        secret = {
            "secretName": "rabbitmq-password",
            "items": [{"key": "RABBITMQ_PASSWORD", "path": "RABBITMQ_PASSWORD"}],
        }
        labels = {"network.stack/database": "true"}
        main = {
            **{"name": POD, "image": container["image"], "securityContext": container["securityContext"]},
            "command": ["python", "-c", "import time; time.sleep(3600)"],
            "volumeMounts": [{"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}],
        }
        return {
            **{"apiVersion": "v1", "kind": "Pod"},
            "metadata": {"name": POD, "namespace": self._site.namespace, "labels": labels},
            "spec": {
                "automountServiceAccountToken": False,  # it would be mounted below the secrets
                **{"nodeName": self._node, "securityContext": api["spec"]["securityContext"], "containers": [main]},
                "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "secrets", "secret": secret}],
            },
        }
