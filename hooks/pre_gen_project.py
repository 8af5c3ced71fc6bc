"""Refuse an answer that would not work further on, in one sentence, before a file is written."""

# Cookiecutter runs this with its own Python, which may be older than what the project needs.
from __future__ import annotations

import json
import re
import sys
from pathlib import Path

# JSON in a raw literal: an answer stays data, whatever it holds. No answer can end the literal: JSON
# escapes the quotes inside a string, and never has three bare ones in a row.
ANSWERS = r"""<< cookiecutter | tojson >>"""

TOO_OLD = (
    "This template needs Cookiecutter 2.6 or newer: upgrade it with `pipx upgrade cookiecutter`, "
    "or start the newest once with `pipx run cookiecutter`."
)

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOSTNAME = rf"{LABEL}(\.{LABEL})*"
_WORD = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
# The name of an image without its version, with a registry's host and port in front if there is one.
IMAGE = rf"({HOSTNAME}(:[0-9]{{1,5}})?/)?{_WORD}(/{_WORD})*"
# `<project>-staging-notification-service-10` is a host name in Docker's DNS, and a label has at most 63 characters.
PROJECT_LENGTH = 30


def check_text(answers: dict[str, str]) -> str | None:
    """Names are free text for people: anything that prints, on one line."""
    for question in ("project_name", "organisation"):
        answer = answers[question]
        if not answer.strip():
            return f"{question} is empty: give a name that people will recognise."
        if not answer.isprintable():
            return f"{question} {answer!r} contains a line break or a control character: write it on one line."
        if len(answer) > 100:
            return f"{question} has {len(answer)} characters: shorten it to 100."
    return None


def check_project(answers: dict[str, str]) -> str | None:
    """One word that is a folder, a Compose project, a part of host names and of image names at once."""
    project = answers["project"]
    if not re.fullmatch(r"[a-z]([a-z0-9]|-(?=[a-z0-9]))*", project):
        return f"project {project!r} is not a short name: use a-z, 0-9 and single hyphens, a letter first (acme-stack)."
    if len(project) > PROJECT_LENGTH:
        return f"project {project!r} has {len(project)} characters: shorten it to {PROJECT_LENGTH}, as in acme-stack."
    return None


def check_domain(answers: dict[str, str]) -> str | None:
    """The host name of production, in the form that certificates and nginx know."""
    domain = answers["domain"]
    if len(domain) > 253 or not re.fullmatch(HOSTNAME, domain):
        return f"domain {domain!r} is not a host name: use lower case, without https:// or a path (shop.example.com)."
    return None


def check_admin_email(answers: dict[str, str]) -> str | None:
    """An address that needs no quoting in any configuration file."""
    email = answers["admin_email"]
    if not re.fullmatch(rf"[A-Za-z0-9]([A-Za-z0-9._+-]{{0,62}}[A-Za-z0-9])?@{HOSTNAME}", email):
        return (
            f"admin_email {email!r} is not an e-mail address that this project can use: write it as admin@example.com."
        )
    return None


def check_image_prefix(answers: dict[str, str]) -> str | None:
    """What stands before `/web:current`: a path, with a registry's host and port in front if there is one."""
    prefix = answers["image_prefix"]
    if len(prefix) > 128 or not re.fullmatch(IMAGE, prefix):
        return (
            f"image_prefix {prefix!r} cannot start an image's name: "
            "use lower case, as in acme or registry.example.com/acme, without https:// or a slash at the end."
        )
    return None


def check_service_image(answers: dict[str, str]) -> str | None:
    """An image in the form of `docker pull`, and the port it listens on; only where one was chosen."""
    image, port = answers["service_image"], answers["service_port"]
    if answers["services"] != "image":
        if image != "none":
            return f"service_image {image!r} is used with services 'image' only: choose that, or leave it at 'none'."
        return None
    version = r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
    if image == "none" or not re.fullmatch(IMAGE + version, image):
        return f"service_image {image!r} is not the name of an image: write it as ghcr.io/acme/shop:1.4.2."
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return f"service_port {port!r} is not a port: use a number from 1 to 65535."
    return None


def check_services(answers: dict[str, str]) -> str | None:
    """A service of one's own is put in after all files are there, by the project's code; the examples are removed."""
    answer = answers["services"]
    if answer == "example":
        return None
    if sys.version_info < (3, 11):  # noqa: UP036
        return f"services {answer!r} needs Python 3.11 or newer, as the project does: start Cookiecutter with that one."
    if Path("docker-compose.services.yml").exists():
        return (
            f"services {answer!r} cannot be baked over a project that is there, because services in it would be"
            " removed: choose another folder, or take a newer version of the template with `cruft update`."
        )
    return None


CHECKS = (
    check_text,
    check_project,
    check_domain,
    check_admin_email,
    check_image_prefix,
    check_service_image,
    check_services,
)


def problem(answers: dict[str, str]) -> str | None:
    """The first sentence that the answers earn. One is enough: later answers take their defaults from earlier ones."""
    return next(filter(None, (check(answers) for check in CHECKS)), None)


def main() -> int:
    """Print what is wrong, if anything; exit code 1 makes Cookiecutter drop the project."""
    try:
        sentence = problem(json.loads(ANSWERS))
    except ValueError:  # an older Cookiecutter does not know our delimiters, and leaves them as they are
        sentence = TOO_OLD
    if sentence:
        print(sentence, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
