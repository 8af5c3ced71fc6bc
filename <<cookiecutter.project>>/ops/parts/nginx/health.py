"""The health of the edge: a request from outside is answered, with a certificate that is not about to expire."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.parts.nginx import edge, maintenance
from ops.parts.probes import PROBE_SECONDS, Check, Probe, Seen, Status
from ops.secrets import certificates
from ops.stack import pools

TITLE = "Edge"
# As the alert CertificateExpires (monitoring/prometheus/rules/stack.yml).
CERTIFICATE_WARN_DAYS = 21
_PEM_END = "-----END CERTIFICATE-----"


def probes(seen: Seen) -> Iterator[Probe]:
    """Send one request through TLS, and look at the certificate that is served."""
    yield Probe("https", edge.SERVICE, lambda: _https(seen.env, pools.hosts(seen.declared)))


def _https(env: Environment, hosts: Sequence[str]) -> list[Check]:
    domain, port = env.values["DOMAIN"], env.number("SSL_PORT", 443)
    bound = env.values.get("BIND_ADDRESS", "")
    address = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(bound, bound.strip("[]"))
    context = ssl.create_default_context()
    authority = certificates.authority_of(env)
    if authority.is_file():
        context.load_verify_locations(authority)
    try:
        with socket.create_connection((address, port), PROBE_SECONDS) as plain:
            if env.values.get("PROXY_PROTOCOL"):
                plain.sendall(b"PROXY UNKNOWN\r\n")  # on behalf of nobody
            with context.wrap_socket(plain, server_hostname=domain) as secured:
                secured.sendall(f"GET /health HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
                response = http.client.HTTPResponse(secured)
                response.begin()
                version, status = secured.version(), response.status
                served, leaf = secured.getpeercert() or {}, secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return [Check("https", "nginx", "fail", f"its certificate is not accepted: {error.verify_message}")]
    except OSError as error:
        return [Check("https", "nginx", "fail", f"no answer on {address}:{port}: {error.strerror or error}")]
    checks = [
        Check("https", "nginx", "ok" if status == 200 else "fail", f"/health answers {status}, {version}"),
        _certificate(env, hosts, served, leaf or b""),
    ]
    if began := maintenance.since(env):
        checks.append(
            Check("maintenance", "nginx", "warn", f"{maintenance.describe(began)}: visitors see the maintenance page")
        )
    return checks


def _certificate(env: Environment, hosts: Sequence[str], served: Mapping[str, Any], leaf: bytes) -> Check:
    """The certificate that nginx serves, and whether it could load the files again."""
    try:
        found = certificates.validate(env, hosts)
    except OpsError as error:
        detail = f"nginx serves what it has loaded, and could not start again: {error.message}"
        return Check("certificate", env.values["DOMAIN"], "fail", detail)
    return judge_certificate(env, served, stale=leaf != _leaf(found.path), local=found.local, now=time.time())


def _leaf(chain: Path) -> bytes:
    """The first certificate of a file, DER-encoded."""
    text = chain.read_text(encoding="ascii")
    return ssl.PEM_cert_to_DER_cert(text[: text.index(_PEM_END) + len(_PEM_END)].strip())


def judge_certificate(env: Environment, served: Mapping[str, Any], *, stale: bool, local: bool, now: float) -> Check:
    """How long the served certificate lasts. stale: the file holds another one; now: seconds since the epoch."""
    days = int((ssl.cert_time_to_seconds(served["notAfter"]) - now) // 86400)
    status: Status = "warn" if days < CERTIFICATE_WARN_DAYS else "ok"
    detail = f"{days} days left, {'from the local authority' if local else 'from a public authority'}"
    if stale:
        status, detail = "warn", f"{detail}; the file has another one: invoke deploy --env {env.name} loads it"
    elif env.name == "prod" and local:
        status, detail = "warn", f"{detail}: browsers do not accept it"
    return Check("certificate", env.values["DOMAIN"], status, detail)
