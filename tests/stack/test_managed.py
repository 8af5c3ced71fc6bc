"""The example services on a PostgreSQL outside of the stack, as a provider runs it: TLS only, roles made by hand.

The tests share one stack, in this order. It takes minutes, so it runs in `nox -s faults` only; that the files fit
together is tested by the policy, and the commands by unit tests (ops/tests/parts/test_managed.py).
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ports import free_port

from .project import Project, docker, eventually, refused

pytestmark = [pytest.mark.story, pytest.mark.fault]

FILES = ("docker-compose.postgres.yml", "docker-compose.postgres-managed.yml")
PARTS = "docker-compose.scheduler.yml:docker-compose.backup.yml"
# The server's own user can read the key, and only TLS is let in from elsewhere.
START = """\
install -o postgres -m 600 /tls/server.key /var/lib/postgresql/server.key
exec docker-entrypoint.sh postgres -c ssl=on \\
  -c ssl_cert_file=/tls/server.crt -c ssl_key_file=/var/lib/postgresql/server.key
"""
ONLY_TLS = "sed -i 's/^host all all all/hostssl all all all/' \"$PGDATA/pg_hba.conf\"\n"


@dataclass(frozen=True)
class Provider:
    """A server on the bridge of the engine, out of reach of the project's networks but by its published port."""

    name: str
    address: str
    authority: str

    def sql(self, statement: str, database: str = "appdb") -> str:
        """Run a statement as the administrator."""
        return docker("exec", self.name, "psql", "-U", "provider", "-d", database, "-Atqc", statement)


def certificates(folder: Path, address: str) -> str:
    """Write server.crt and server.key for an address; the certificate of the authority that signed it."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, ca: bool) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = (
            x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        made = made if ca else made.add_extension(alternative, critical=False)
        return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.crt").write_bytes(certificate("server", own.public_key(), authority, ca=False))
    (folder / "server.key").write_bytes(own.private_bytes(*formats))
    return certificate("provider", authority.public_key(), authority, ca=True).decode()


def image(project: Project) -> str:
    """PostgreSQL's, as the engine of the tests has it."""
    return project.settings()["POSTGRES_IMAGE"].replace("${REGISTRY_MIRROR}", "")


@pytest.fixture(scope="module")
def provider(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    authority = certificates(folder, address)
    (folder / "only-tls.sh").write_text(ONLY_TLS)
    for each in (folder, *folder.iterdir()):
        each.chmod(0o755)
    # One of its own: what the engine chooses is another one after a restart.
    name, port = f"{project.name()}-provider", free_port()
    docker(
        *("run", "--detach", "--name", name, "--publish", f"{address}:{port}:5432", "--volume", f"{folder}:/tls:ro"),
        *("--volume", f"{folder}/only-tls.sh:/docker-entrypoint-initdb.d/only-tls.sh:ro", "--env", "POSTGRES_DB=appdb"),
        *("--env", "POSTGRES_USER=provider", "--env", "POSTGRES_PASSWORD=outside", "--entrypoint", "bash"),
        *(image(project), "-ec", START),
    )
    try:
        ready = ("exec", name, "pg_isready", "-h", "127.0.0.1")
        eventually(lambda: docker(*ready, check=False).endswith("accepting connections"), 60, "the provider's server")
        yield Provider(name, f"{address}:{port}", authority)
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def test_a_deploy_is_refused_without_the_authority_and_says_where_it_belongs(
    project: Project, provider: Provider
) -> None:
    files = project.settings()["COMPOSE_FILE"].replace(*FILES)
    files = files.replace("docker-compose.services", f"{PARTS}:docker-compose.services")
    project.set(
        COMPOSE_FILE=f"{files}:docker-compose.postgres-clients.yml:docker-compose.backup-volumes.yml",
        DATABASE_HOSTS=provider.address,
        DATABASE_SSLMODE="verify-full",
        DATABASE_SSLROOTCERT="/etc/postgres/ca.crt",
    )
    done = project.invoke("deploy", "--yes", code=None)
    refused(done, "root certificate file", "config/<env>/postgres/ca.crt")


def test_what_is_missing_is_named_with_its_sql_and_nothing_runs_before(project: Project, provider: Provider) -> None:
    (project.folder / "config/dev/postgres/ca.crt").write_text(provider.authority)
    done = project.invoke("deploy", "--yes", code=3)
    refused(done, "As its administrator, in appdb, what of this is missing: ")
    assert not any("-api-" in name for name in project.containers())
    statements = re.sub(r"\s+", " ", done.stderr).partition("is missing: ")[2].rpartition(";")[0].split("; ")
    assert len(statements) > 10
    for each in statements:
        # As a person does who types it.
        secret = re.search(r"the value of the secret (\w+)", each)
        value = (project.folder / "config/dev/secrets" / secret[1]).read_text().strip() if secret else ""
        provider.sql(each.replace(secret[0], value) if secret else each)


def test_the_whole_site_runs_on_it(project: Project, provider: Provider) -> None:
    assert "running migrate" in project.invoke("deploy", "--yes").stdout
    with project.client() as client:
        project.sign_in(client, "ann@example.com")
        made = client.post("/api/v1/items", json={"title": "kept"})
        assert made.status_code == 201, made.text
    assert provider.sql("SELECT count(*) FROM auth.users") == "1"
    report = project.health()
    details = [each["detail"] for each in report["checks"] if each["name"] == "postgres"]
    assert any("takes writes, TLSv1.3" in each for each in details), details
    open_text = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE NOT ssl AND"
    assert provider.sql(f"{open_text} client_addr IS NOT NULL") == "0"
    assert "nothing to change" in project.invoke("deploy", "--yes").stdout


def test_a_new_release_rolls_out(project: Project) -> None:
    path = project.folder / "services/api/api/routes.py"
    path.write_text(path.read_text() + "\n# another release\n")
    said = project.invoke("deploy", "--yes").stdout
    assert re.search(r"^api +replaced", said, re.MULTILINE)
    with project.client() as client:
        project.sign_in(client, "ann@example.com")
        assert [each["title"] for each in client.get("/api/v1/items").json()["items"]] == ["kept"]


def test_its_databases_are_saved_proven_and_served_beside_the_stack(project: Project, provider: Provider) -> None:
    project.invoke("backup")
    assert "was restored and is what was saved" in project.invoke("backup", "--verify").stdout
    provider.sql("DELETE FROM auth.users")
    refused(project.invoke("restore", "latest", "--only", "postgres", "--yes", code=3), "outside of the stack")
    served = json.loads(project.invoke("restore", "latest", "--into", "scratch", "--json").stdout)
    password = (project.folder / "config/dev/secrets/BACKUP_DB_PASSWORD").read_text().strip()
    client = ("run", "--rm", "--network", "host", "--env", f"PGPASSWORD={password}", "--entrypoint", "psql")
    assert docker(*client, image(project), served["url"], "-At", "-c", "SELECT count(*) FROM auth.users") == "1"
    project.invoke("restore", "--drop-scratch")


def test_it_is_away_and_back(project: Project, provider: Provider) -> None:
    docker("stop", provider.name)
    report = project.health(code=None)
    failed = [each for each in report["checks"] if each["name"] == "postgres" and each["status"] == "fail"]
    assert any("refused" in each["detail"] for each in failed), report["checks"]
    docker("start", provider.name)
    eventually(lambda: project.health(code=None)["healthy"], 60, "health")
