"""The one exception a user is meant to see, and the exit codes of every command."""

from __future__ import annotations

import json

OK = 0
FAILED = 1  # tried and did not succeed, or found something unhealthy
USAGE = 2  # the command line or a settings file is wrong
REFUSED = 3  # preflight: nothing was touched
BUILD = 4  # an image could not be built or pulled; what runs was not touched
MIGRATION = 5  # a migration failed; what runs was not touched
# A new container failed, and the old ones keep serving. What fails in monitoring is a warning, and the code is OK: the
# site is deployed.
CRASHED = 6  # it ended
NOT_READY = 7  # it did not become healthy in time, or is unhealthy
SMOKE = 8  # it was healthy, and gave the wrong answer to its smoke request
OUT_OF_MEMORY = 9  # it needed more than its limit
INTERRUPTED = 130  # Ctrl-C, as a shell reports it (128 + SIGINT)


class OpsError(Exception):
    """Something a user can understand and act on.

    message: one sentence, what is wrong and where; remedy: what to do about it; code: exit code of the command.
    """

    def __init__(self, message: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code

    def as_json(self) -> str:
        """The error as a JSON document, for a command that was asked for JSON."""
        return json.dumps({"error": {"message": self.message, "remedy": self.remedy, "code": self.code}})
