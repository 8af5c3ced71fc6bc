"""`python -m newservice`: the job new-service. Its exit code says how it ended, its log is JSON."""

import sys

from stack import log
from stack.settings import Settings, load


class NewServiceSettings(Settings):
    """Settings of new-service: each is an environment variable of its name in capitals."""

    service_name: str = "new-service"


def work(settings: NewServiceSettings) -> int:
    """What the job does; how many things it did."""
    return 0


def main() -> int:
    """Exit status 0 when it is done."""
    settings = load(NewServiceSettings)
    log.configure(settings.service_name, settings.log_level)
    log.get().info("done", count=work(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
