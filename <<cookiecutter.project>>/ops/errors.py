"""The one exception a user is meant to see, and the exit codes of every command."""

OK = 0
FAILED = 1  # tried and did not succeed, or found something unhealthy
USAGE = 2  # the command line or a settings file is wrong
REFUSED = 3  # preflight: nothing was touched
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
