"""One stack from its first deploy to its last `down`, through `invoke`, a browser, HTTPS and SMTP only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from .edits import announced
from .project import Project, eventually

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery staple"
TITLE = "Analytical Engine – «Nº 1»"
FILE = bytes(range(256)) * 4096  # 1 MiB in which every byte value occurs

# alone: Chromium gives up what it is loading whenever an interface of the machine comes or goes, as with every
# container that starts beside (ERR_NETWORK_CHANGED).
pytestmark = [pytest.mark.story, pytest.mark.alone]


@pytest.fixture(scope="module")
def kept() -> dict[str, object]:
    """What one chapter leaves for the next."""
    return {}


def log_in(page: Page, project: Project) -> None:
    page.goto(f"{project.url()}/login")
    page.fill("input[name=email]", EMAIL)
    page.fill("input[name=password]", PASSWORD)
    page.click("main form button")
    page.wait_for_selector("input[name=title]")


def uploads_of(project: Project, chromium: str, screenshot: Path | None = None) -> dict[str, bytes]:
    """Every uploaded file as the page lists and the browser downloads it."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(ignore_https_errors=True, accept_downloads=True).new_page()
        log_in(page, project)
        page.goto(f"{project.url()}/uploads")
        if screenshot:
            page.screenshot(path=screenshot, full_page=True)
        files = {}
        for link in page.locator("a[href^='/uploads/']").all():
            with page.expect_download() as download:
                link.click()
            files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
        browser.close()
    return files


def test_the_plan_of_the_first_deploy_names_what_will_be_made(project: Project) -> None:
    assert announced(project) >= {"web", "api", "postgres-primary", "nginx", "migrate"}
    assert project.containers() == {}


def test_first_deploy_makes_secrets_and_certificate_and_ends_healthy(project: Project) -> None:
    deployed = project.invoke("deploy")
    assert project.url() in deployed.stdout
    assert (project.folder / "config/dev/secrets/JWT_SECRET").stat().st_mode & 0o777 == 0o444
    assert project.certificate_authority().is_file()


def test_health_is_green_and_says_that_replication_streams(project: Project) -> None:
    report = project.health()
    assert report["healthy"] is True
    assert {check["status"] for check in report["checks"]} == {"ok"}
    names = " ".join(f"{check['name']} {check['target']}" for check in report["checks"])
    for part in ("postgres-primary", "postgres-replica", "redis-primary", "redis-replica", "rabbitmq", "nginx", "web"):
        assert part in names


def test_plain_http_is_sent_to_https(project: Project) -> None:
    port = project.settings()["WEB_PORT"]
    answer = httpx.get(f"http://localhost:{port}/items?page=2", follow_redirects=False)
    assert answer.status_code in (301, 308)
    assert answer.headers["location"] == f"{project.url()}/items?page=2"
    assert httpx.get(f"http://localhost:{port}/health").status_code == 200


def test_a_person_registers_logs_in_creates_and_uploads(
    project: Project, kept: dict[str, object], chromium: str, screenshots: Path, tmp_path: Path
) -> None:
    (tmp_path / "résumé & plan.bin").write_bytes(FILE)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(ignore_https_errors=True).new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{project.url()}/register")
        page.screenshot(path=screenshots / "register.png", full_page=True)
        page.fill("input[name=email]", EMAIL)
        page.fill("input[name=password]", PASSWORD)
        page.click("main form button")
        page.wait_for_load_state()
        page.context.clear_cookies()  # whatever registering did: logging in is done by hand
        log_in(page, project)
        page.fill("input[name=title]", TITLE)
        page.fill("[name=body]", "The first of its kind.")
        page.click("form:has(input[name=title]) button")
        page.wait_for_selector(f"text={TITLE}")
        page.screenshot(path=screenshots / "items.png", full_page=True)
        page.goto(f"{project.url()}/uploads")
        page.set_input_files("input[name=file]", tmp_path / "résumé & plan.bin")
        page.click("form:has(input[name=file]) button")
        page.wait_for_selector("a[href^='/uploads/']")
        page.goto(f"{project.url()}/status")
        page.screenshot(path=screenshots / "status.png", full_page=True)
        browser.close()
    assert complaints == []  # a Content-Security-Policy the pages do not satisfy would show here
    files = uploads_of(project, chromium, screenshots / "uploads.png")
    assert list(files.values()) == [FILE]
    kept["browser"] = True


def test_the_item_is_in_the_api_from_primary_replica_and_cache(project: Project, kept: dict[str, object]) -> None:
    with project.client() as client:
        project.sign_in(client, EMAIL, PASSWORD)
        if "browser" not in kept:  # without one that chapter was skipped
            assert client.post("/api/v1/items", json={"title": TITLE}).status_code == 201
        (item,) = _all_items(client)
        assert item["title"] == TITLE
        first = client.get(f"/api/v1/items/{item['id']}")
        second = client.get(f"/api/v1/items/{item['id']}")
        assert second.headers["X-Cache"] == "hit"
        assert first.json() == second.json()
        replica = eventually(
            lambda: client.get(f"/api/v1/items/{item['id']}?fresh=1").headers["X-Database"] == "replica",
            what="a read served by the replica",
        )
        assert replica
        # Read your own write: the very next read has it, wherever it is served from.
        for number in range(20):
            made = client.post("/api/v1/items", json={"title": f"note {number}"}).json()
            assert client.get(f"/api/v1/items/{made['id']}?fresh=1").status_code == 200
        kept["items"] = {made["id"]: made for made in _all_items(client)}
        assert len(kept["items"]) == 21


def _all_items(client: httpx.Client) -> list[dict[str, object]]:
    return client.get("/api/v1/items", params={"limit": 100}).json()["items"]


def test_every_item_was_mailed_once(project: Project) -> None:
    eventually(lambda: len(project.mails()) >= 21, 60, "21 mails in the sink")
    mails = project.mails()
    assert len(mails) == 21
    assert len({mail["MessageID"] for mail in mails}) == 21
    assert all(mail["To"][0]["Address"] == EMAIL for mail in mails)


def test_scale_brings_traffic_to_all_three(project: Project) -> None:
    project.invoke("scale", "web", "3")
    with project.client() as client:

        def served_by() -> bool:
            seen = {client.get("/login").headers["X-Served-By"] for _ in range(30)}
            return len(seen) == 3

        eventually(served_by, 20, "three web replicas that serve")
    assert sum("-web-" in name for name in project.containers()) == 3


def test_a_second_deploy_changes_nothing_and_says_so(project: Project) -> None:
    before = project.containers()
    deployed = project.invoke("deploy")
    assert "nothing to change" in deployed.stdout.lower()
    assert project.containers() == before


def test_backup_then_down_with_volumes_leaves_nothing(project: Project, kept: dict[str, object]) -> None:
    project.invoke("backup")
    (archive,) = (project.folder / "backups/dev").glob("*.tar")
    kept["archive"] = archive
    refused = project.invoke("down", "--volumes", code=None)  # nobody there to say yes
    assert refused.returncode != 0 and project.volumes()
    project.invoke("down", "--volumes", "--yes")
    assert (project.containers(), project.networks(), project.volumes()) == ({}, set(), set())


def test_restore_brings_everything_back_byte_for_byte(project: Project, kept: dict[str, object], chromium: str) -> None:
    project.invoke("deploy")
    with project.client() as client:
        assert client.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).status_code == 401
    project.invoke("restore", str(kept["archive"]), "--yes")
    with project.client() as client:
        project.sign_in(client, EMAIL, PASSWORD)
        assert {item["id"]: item for item in _all_items(client)} == kept["items"]
    (content,) = uploads_of(project, chromium).values()
    assert hashlib.sha256(content).digest() == hashlib.sha256(FILE).digest()
    assert project.health()["healthy"] is True


def test_a_new_item_after_the_restore_is_mailed(project: Project) -> None:
    with project.client() as client:
        project.sign_in(client, EMAIL, PASSWORD)
        client.post("/api/v1/items", json={"title": "after the restore"}).raise_for_status()
    eventually(lambda: any("after the restore" in mail["Subject"] for mail in project.mails()), 60, "the mail")


def test_down_keeps_volumes_unless_told(project: Project) -> None:
    volumes = project.volumes()
    project.invoke("down")
    assert (project.containers(), project.networks()) == ({}, set())
    assert project.volumes() == volumes
    project.invoke("down", "--volumes", "--yes")
    assert project.volumes() == set()
