"""Services of the team's own in four languages: added, served over TLS, scaled, rolled out under load, and removed."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import quickstart, template

from .project import Project, docker, eventually

pytestmark = pytest.mark.story

# Each with what its page says. pages: a site of files with an nginx of its own, as somebody else may have built it.
PAGES = {"notes": "notes works", "shop": "shop works", "price-list": "price-list works", "pages": "a page of ours"}

SITE = """\
FROM {image}
COPY nginx.conf /site/nginx.conf
COPY index.html /site/html/pages/index.html
USER 101:101
ENTRYPOINT ["nginx", "-c", "/site/nginx.conf", "-g", "daemon off;"]
"""
SITE_CONF = """\
pid /tmp/nginx.pid;
error_log /dev/stderr;
events {}
http {
    client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
    uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    access_log off;
    server { listen 8000; root /site/html; }
}
"""


@pytest.fixture(scope="module")
def project(dev_stack: Project) -> Project:
    quickstart.provide(template.bases())
    folder = dev_stack.folder / "services/pages"
    folder.mkdir()
    (folder / "Dockerfile").write_text(SITE.format(image=image(dev_stack, "nginx")))
    (folder / "nginx.conf").write_text(SITE_CONF)
    (folder / "index.html").write_text("a page of ours\n")
    return dev_stack


def image(project: Project, service: str) -> str:
    return docker("inspect", "--format", "{{.Config.Image}}", f"{project.name()}-{service}-1")


def said(project: Project, name: str) -> str:
    with project.client() as client:
        return client.get(f"/{name}/").text


@contextmanager
def visitors(project: Project, path: str) -> Iterator[list[str]]:
    """Requests one after the other, on new connections and on kept ones; what failed of them."""
    failed: list[str] = []
    count, stop = [0], threading.Event()

    def visit(kept: bool) -> None:
        client = project.client()
        while not stop.is_set():
            try:
                answer = client.get(path)
                if answer.status_code != 200:
                    failed.append(str(answer.status_code))
            except httpx.HTTPError as error:
                failed.append(repr(error))
            count[0] += 1
            if not kept:
                client.close()
                client = project.client()
            stop.wait(0.05)
        client.close()

    threads = [threading.Thread(target=visit, args=(kept,)) for kept in (True, False)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert count[0] > 50


def test_a_command_each_and_one_deploy(project: Project) -> None:
    before = set(docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={project.name()}").split())
    project.invoke("service-add", "notes", "--from", "python", "--route", "/notes", "--schema", "--volume", "/data")
    project.invoke("service-add", "shop", "--from", "node", "--route", "/shop", "--queue", "--cache")
    project.invoke("service-add", "price-list", "--from", "go", "--route", "/price-list", "--internal", "--database")
    project.invoke("service-add", "pages", "--from", "dockerfile", "--route", "/pages", "--port", "8000")
    project.invoke("secret-init")
    # Nothing else is built for them.
    assert "building notes, notes-migrate, pages, price-list, shop (" in project.invoke("deploy").stdout
    for name, words in PAGES.items():
        assert words in said(project, name)
    after = set(docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={project.name()}").split())
    # Nothing that ran before was replaced for it: neither nginx nor HAProxy, and no part of the data tier.
    assert before <= after
    assert project.health()["healthy"] is True
    assert "nothing to do" in project.invoke("deploy", "--plan").stdout


def test_what_they_own_is_there(project: Project) -> None:
    with project.client() as client:
        assert client.post("/notes/notes", json={"text": "kept"}).status_code == 201
        assert client.get("/notes/notes").json() == ["kept"]
    (volume,) = [name for name in project.volumes() if name.endswith("_notes_data")]
    assert volume
    owner = docker("exec", f"{project.name()}-notes-1", "python", "-c", "import os; print(os.stat('/data').st_uid)")
    assert owner == "10001"


# In an image, because that is where the language is. Of Python: tests/test_adopting.py.
TESTS = {
    "shop": ("npm ci --no-audit --no-fund", "npm test"),
    "price-list": ("go mod download", "go test ./..."),
}


@pytest.mark.fault
@pytest.mark.fault
@pytest.mark.parametrize("name", TESTS)
def test_their_own_tests_pass(project: Project, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(project.folder / "services" / name, tmp_path / name)
    # It leaves the tests out of the image.
    (folder / ".dockerignore").unlink()
    base = next(each for each in template.bases() if ("node" in each) == (name == "shop"))
    trust = "NODE_EXTRA_CA_CERTS=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca"
    install, test = TESTS[name]
    recipe = f"""\
FROM {base}
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=ca if [ -s /run/secrets/ca ]; then export {trust}; fi && {install}
RUN {test}
"""
    bundle = project.settings()["BUILD_CA_BUNDLE"]
    argv = ["docker", "build", "--secret", f"id=ca,src={bundle}", "--file", "-", str(folder)]
    done = subprocess.run(argv, input=recipe, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_scaling_one_of_them(project: Project) -> None:
    with visitors(project, "/shop/") as failed:
        project.invoke("scale", "shop", "2")
    assert failed == []
    assert sum("-shop-" in name for name in project.containers()) == 2
    # The entry has the default, the environment what differs from it.
    assert "SHOP_REPLICAS=2" in project.env_file().read_text()


@pytest.mark.parametrize(
    ("name", "file", "old"),
    [
        ("notes", "services/notes/notes/app.py", "notes works"),
        ("shop", "services/shop/src/app.js", "shop works"),
        ("price-list", "services/price-list/service.go", "price-list works"),
        ("pages", "services/pages/index.html", "a page of ours"),
    ],
)
def test_a_new_release_of_each_loses_no_request(project: Project, name: str, file: str, old: str) -> None:
    path = Path(project.folder / file)
    path.write_text(path.read_text().replace(old, "the next release"))
    with visitors(project, f"/{name}/") as failed:
        project.invoke("deploy")
        eventually(lambda: "the next release" in said(project, name))
    assert failed == []


@pytest.mark.fault
def test_a_release_that_does_not_start_leaves_the_old_one(project: Project) -> None:
    path = project.folder / "services/shop/src/main.js"
    good = path.read_text()
    path.write_text("process.exit(1);\n")
    with visitors(project, "/shop/") as failed:
        project.invoke("deploy", code=None)
    assert failed == []
    assert "the next release" in said(project, "shop")
    path.write_text(good)


@pytest.mark.fault
def test_removing_them_leaves_their_data_and_says_so(project: Project) -> None:
    done = project.invoke("service-remove", "notes", "--yes")
    assert "The schema notes of PostgreSQL is still in use: notes-migrate owns it too." in done.stdout
    done = project.invoke("service-remove", "notes-migrate", "--yes")
    assert "its schema and role notes in PostgreSQL" in done.stdout
    for name in ("shop", "price-list", "pages"):
        project.invoke("service-remove", name, "--yes")
    project.invoke("deploy", "--yes")
    with project.client() as client:
        # What is not theirs any more is web's, which has no such page.
        assert {client.get(f"/{name}/").status_code for name in PAGES} == {404}
    assert not [name for name in project.containers() if any(f"-{each}-" in name for each in PAGES)]
    assert any(name.endswith("_notes_data") for name in project.volumes())
    assert project.health()["healthy"] is True
    assert (project.folder / "services/shop/package.json").is_file()
