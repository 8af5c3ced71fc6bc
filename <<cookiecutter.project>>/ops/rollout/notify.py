"""Tell a webhook how a deploy goes: JSON with a `text`, as Slack and others take it, and the same in fields.

The address is a secret of its own: whoever has it can write there. It is in no message, whatever goes wrong.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from ops.base import console
from ops.base.environments import Environment
from ops.secrets import files

SECRET = "DEPLOY_WEBHOOK_URL"
STARTED, SUCCEEDED, FAILED, ROLLED_BACK = "started", "succeeded", "failed", "rolled back"
# Of one attempt; there are two. Name servers keep to no limit of ours, so the whole has one as well.
_ATTEMPT_SECONDS = 3.0
_ALL_SECONDS = 8.0
_MARKS = {STARTED: "🚀", SUCCEEDED: "✅", FAILED: "❌", ROLLED_BACK: "↩️"}


def send(env: Environment, event: str, variables: Mapping[str, str]) -> None:
    """Tell the webhook of an environment, if it has one. A failure is a warning; it takes some seconds at most.

    variables: as the hooks are told.
    """
    url = files.read(env, SECRET)
    if not url:
        return
    problem = [f"no answer within {_ALL_SECONDS:.0f} s"]

    def work() -> None:
        problem[0] = _post(url, json.dumps(document(event, variables)).encode())

    # A daemon: one that hangs must not keep the command from ending.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_ALL_SECONDS)
    if problem[0]:
        console.warn(f"The webhook ({SECRET}) was not told that the deploy {event}: {problem[0]}.")


def document(event: str, variables: Mapping[str, str]) -> dict[str, object]:
    """What is sent. Keys are only ever added."""
    services = variables.get("SERVICES", "").split()
    reason = variables.get("REASON", "")
    parts = [
        f"{_MARKS[event]} {variables.get('PROJECT', '')}: {variables.get('COMMAND', '')} {event}",
        f"by {variables.get('USER', '')}",
        *([f"({', '.join(services)})"] if services else []),
        *([f"at {variables['COMMIT']}"] if variables.get("COMMIT") else []),
    ]
    return {
        "text": " ".join(parts) + (f"\n{reason}" if reason else ""),
        "event": event,
        "services": services,
        **{
            key.lower(): variables.get(key, "")
            for key in ("ENV", "PROJECT", "COMMAND", "USER", "COMMIT", "RELEASE", "RESULT", "REASON", "SECONDS")
        },
    }


def _post(url: str, body: bytes) -> str:
    """Post, and once more after a failure; why it failed, without the address, "" when it did not."""
    problem = ""
    for _ in range(2):
        try:
            if urlsplit(url).scheme not in {"http", "https"}:
                return "its value is not an http:// or https:// address"
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=_ATTEMPT_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            problem = f"it answered {error.code}"
            # It has understood us, and does not want it: asking again changes nothing.
            if error.code < 500 and error.code != 429:
                return problem
        except urllib.error.URLError as error:
            # The reason is an error of the network, which knows no path.
            problem = str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)
        # What they say may quote the address.
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = type(error).__name__
    return problem
