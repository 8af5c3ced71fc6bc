"""Settings of new-service: each is an environment variable of its name in capitals."""

from stack.settings import Settings


class NewServiceSettings(Settings):
    """Settings of new-service."""

    service_name: str = "new-service"
    base_path: str = ""
