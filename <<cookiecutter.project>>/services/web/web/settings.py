"""Settings of the web service."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from stack.settings import Settings


class WebSettings(Settings):
    """Settings of the web service. It has no secrets: whatever needs one is the api's job."""

    service_name: str = "web"
    site_name: str = Field(default="Stack", min_length=1, description="what the pages call the site")
    api_url: str = Field(min_length=1, pattern="^https?://")
    api_timeout: float = Field(default=15, gt=0, description="longest that the api may take, seconds")
    upload_dir: Path = Path("/app/uploads")
    upload_max_mb: int = Field(default=20, ge=1, description="largest file")
    upload_quota_mb: int = Field(default=500, ge=1, description="all files of one person")
    upload_max_files: int = Field(default=1000, ge=1, description="files of one person")

    @model_validator(mode="after")
    def _a_file_fits(self) -> Self:
        if self.upload_quota_mb < self.upload_max_mb:
            quota, largest = self.upload_quota_mb, self.upload_max_mb
            raise ValueError(f"UPLOAD_QUOTA_MB is {quota}, less than one file of UPLOAD_MAX_MB, {largest}: raise it")
        return self
