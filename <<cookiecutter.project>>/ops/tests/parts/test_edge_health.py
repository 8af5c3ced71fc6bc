"""What a request from outside says about the edge and its certificate."""

import time
from datetime import UTC, datetime

import pytest

from ops.base import environments
from ops.parts.nginx import health
from ops.secrets import certificates

NOW = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
LATER = {"notAfter": "Jan 26 00:00:00 2027 GMT"}


@pytest.mark.parametrize(
    ("served", "stale", "local", "status", "words"),
    [
        (LATER, False, True, "ok", "61 days left, from the local authority"),
        (LATER, False, False, "ok", "61 days left, from a public authority"),
        ({"notAfter": "Dec 16 00:00:00 2026 GMT"}, False, False, "warn", "20 days left"),
        ({"notAfter": "Dec 17 00:00:00 2026 GMT"}, False, False, "ok", "21 days left"),
        (LATER, True, False, "warn", "the file has another one: invoke deploy --env dev loads it"),
    ],
)
def test_the_days_are_those_of_what_is_served(env, served, stale, local, status, words):
    check = health.judge_certificate(env, served, stale=stale, local=local, now=NOW)
    assert (check.target, check.status) == ("localhost", status)
    assert words in check.detail


def test_a_certificate_of_our_own_in_prod_is_a_warning(project):
    prod = environments.load("prod", project)
    check = health.judge_certificate(prod, LATER, stale=False, local=True, now=NOW)
    assert check.status == "warn" and "browsers do not accept it" in check.detail


def test_files_that_nginx_could_not_load_again_are_told(project):
    """It serves what it has loaded: the next restart takes the site down."""
    prod = environments.load("prod", project)
    prod.secrets_dir.chmod(0o700)
    certificates.self_sign(prod)
    (certificates.folder_of(prod) / "privkey.pem").unlink()
    check = health._certificate(prod, (), LATER, b"")
    assert check.status == "fail" and "could not start again: " in check.detail and "privkey.pem" in check.detail


def test_the_served_certificate_is_compared_with_the_file(project):
    prod = environments.load("prod", project)
    prod.secrets_dir.chmod(0o700)
    certificates.self_sign(prod)
    leaf = health._leaf(certificates.folder_of(prod) / "fullchain.pem")
    served = {"notAfter": time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + 90 * 86400))}
    assert "the file has another one" not in health._certificate(prod, (), served, leaf).detail
    assert "the file has another one" in health._certificate(prod, (), served, leaf[:-1]).detail
