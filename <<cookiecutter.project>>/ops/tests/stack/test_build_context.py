"""What goes into an image: neither more nor less counts, and what is not understood counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.base import environments
from ops.stack import build_context

SERVICES = ("common", "web", "api")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with two services."""
    dockerfile = "FROM x\nCOPY . /src\nRUN cp /src/${SERVICE:?a folder}\n"
    for name, text in {"Dockerfile": dockerfile, ".dockerignore": "**/tests\n*.md\n", "shared.txt": "1"}.items():
        (tmp_path / name).write_text(text)
    for name in SERVICES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
        (tmp_path / name / "app.py").write_text("1")
    return tmp_path


@pytest.fixture
def digest(context: Path):
    """The digest of the image of web, unless told otherwise."""

    def make(**build: object) -> str:
        return build_context.digest(
            {"context": str(context), "args": {"SERVICE": "web"}, "target": "production", **build}
        )

    return make


@pytest.mark.parametrize("mark", ["pyproject.toml", "package.json", "go.mod", "Dockerfile"])
def test_a_service_in_another_language_is_in_no_image_of_python(context: Path, digest, mark: str) -> None:
    before = digest()
    write(context / "shop" / mark)
    write(context / "shop/src/main.js")
    assert digest() == before


def write(path: Path, text: str = "2") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("Dockerfile", True),
        ("web/app.py", True),
        ("web/new.py", True),
        ("common/app.py", True),
        ("shared.txt", True),
        ("assets/logo.svg", True),
        ("api/app.py", False),
        ("web/tests/test_app.py", False),
        ("README.md", False),
        ("web/__pycache__/app.pyc", False),
        ("web/.ruff_cache/x", False),
        ("requirements-dev.lock", False),
    ],
)
def test_what_counts(context: Path, digest, name: str, counts: bool) -> None:
    before = digest()
    write(context / name)
    assert (digest() != before) is counts


def test_modes_names_and_links_count(context: Path, digest) -> None:
    seen = [digest()]
    (context / "web/app.py").chmod(0o600)
    seen.append(digest())
    (context / "web/app.py").rename(context / "web/main.py")
    seen.append(digest())
    (context / "web/link").symlink_to("../api")
    seen.append(digest())
    (context / "web/link").unlink()
    (context / "web/link").symlink_to("nowhere")
    seen.append(digest())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("build", "counts"),
    [
        ({}, False),
        ({"args": {"SERVICE": "jobs", "PACKAGES": "web api"}}, True),
        ({"args": {}}, True),
        ({"dockerfile_inline": "FROM x\nCOPY api /app"}, True),
        ({"dockerfile": "Dockerfile.other"}, True),
        ({"dockerfile": "Dockerfile.all"}, True),
        ({"additional_contexts": {"it": "api"}}, True),
    ],
)
def test_another_service_counts_where_it_may_go_in(context: Path, digest, monkeypatch, build: dict, counts) -> None:
    monkeypatch.chdir(context)
    (context / "Dockerfile.other").write_text("FROM x\nCOPY api/app.py /app/\n")
    (context / "Dockerfile.all").write_text("FROM x\nCOPY */app.py /app/\n")
    before = digest(**build)
    write(context / "api/app.py")
    assert (digest(**build) != before) is counts


def test_the_developers_tools_are_in_other_targets(context: Path, digest) -> None:
    before = digest(target="dev")
    write(context / "requirements-dev.lock")
    assert digest(target="dev") != before


def test_a_context_that_is_not_here(tmp_path: Path, digest) -> None:
    assert digest(context="https://example.com/some.git") == digest(context=str(tmp_path / "none"))


@pytest.mark.parametrize("package", ["web", "api", "auth", "notification"])
def test_our_own_dockerfile_takes_one_service(package: str) -> None:
    services = environments.PROJECT_DIR / "services"
    folders = {path.parent.name for path in services.glob("*/pyproject.toml")}
    text = (services / "Dockerfile").read_text()
    others = folders - {"common", package}
    assert build_context.elsewhere(text, "dev", [package], folders) == others
    assert build_context.elsewhere(text, "production", [package], folders) == others | {"requirements-dev.lock"}


@pytest.mark.parametrize(
    ("path", "patterns", "verdict"),
    [
        ("a/tests/b.py", ["**/tests"], True),
        ("tests/b.py", ["**/tests"], True),
        ("README.md", ["*.md"], True),
        ("docs/README.md", ["*.md"], False),
        ("docs/README.md", ["**/*.md"], True),
        ("docs/a.txt", ["docs"], True),
        ("docs/a.txt", ["docs", "!docs/a.txt"], False),
        ("web/app.py", [], False),
    ],
)
def test_dockerignore(path: str, patterns: list[str], verdict: bool) -> None:
    assert build_context.ignored(path, patterns) is verdict
