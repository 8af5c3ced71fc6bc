"""Settings of the web service."""

from pathlib import Path

from pydantic import Field

from stack.settings import Settings


class WebSettings(Settings):
    """What the web service is told. It has no secrets: whatever needs one is the api's."""

    service_name: str = "web"
    api_url: str = Field(min_length=1, pattern="^https?://")
    api_timeout: float = Field(default=15, gt=0, description="longest that the api may take, seconds")
    upload_dir: Path = Path("/app/uploads")
    upload_max_mb: int = Field(default=20, ge=1, description="largest file")
    upload_quota_mb: int = Field(default=500, ge=1, description="all files of one person")
