import pytest

from web.csrf import allowed
from web.pages import ASSETS
from web.routes import local_path
from web.uploads import safe_name

HOST = "stack.example:8443"


@pytest.mark.parametrize(
    ("method", "site", "origin", "passes"),
    [
        ("GET", "cross-site", "https://evil.example", True),
        ("HEAD", "cross-site", None, True),
        ("POST", "same-origin", None, True),
        ("POST", "none", None, True),
        ("POST", "same-site", "https://other.stack.example", False),
        ("POST", "cross-site", f"https://{HOST}", False),
        ("POST", "nonsense", None, False),
        ("POST", None, None, True),
        ("POST", None, f"https://{HOST}", True),
        ("POST", None, f"https://{HOST.upper()}", True),
        ("POST", None, "https://stack.example", False),
        ("POST", None, "https://evil.example", False),
        ("POST", None, "null", False),
        ("POST", "", "null", False),
        ("DELETE", "cross-site", None, False),
    ],
)
def test_which_requests_other_sites_may_cause(method: str, site: str | None, origin: str | None, passes: bool) -> None:
    assert allowed(method, HOST, site, origin) is passes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\Größe 1.txt", "Größe 1.txt"),
        ("a\r\nb\x00c", "abc"),
        ('x"y<z>.html', "x_y_z_.html"),
        (".bashrc", "bashrc"),
        ("...", "file"),
        ("", "file"),
        ("a" * 300 + ".pdf", "a" * 150 + ".pdf"),
        ("é" * 300, "é" * 75),
    ],
)
def test_file_names(given: str, kept: str) -> None:
    assert safe_name(given) == kept


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("/uploads", "/uploads"),
        ("/?before=1", "/?before=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("", "/"),
        ("/a\nb", "/"),
    ],
)
def test_the_login_leads_nowhere_else(given: str, target: str) -> None:
    assert local_path(given) == target


def test_the_style_sheet_needs_nothing_from_elsewhere() -> None:
    assert b"url(" not in ASSETS["style.css"].content
    assert b"@import" not in ASSETS["style.css"].content
    assert ASSETS["style.css"].url.startswith("/static/style.")


def test_pages_need_no_exception_from_a_strict_policy() -> None:
    from pathlib import Path

    import web

    for template in (Path(web.__file__).parent / "templates").glob("*.html"):
        text = template.read_text()
        for forbidden in ("<script", "<style", " style=", " onclick", "javascript:", "http://", "https://"):
            assert forbidden not in text, (template.name, forbidden)
