"""The certificate nginx shows: made by a local authority for dev and staging, checked and never made up for prod."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.base.environments import relative
from ops.base.errors import OpsError
from ops.secrets.files import FOLDER_MODE, replace_file

if TYPE_CHECKING:
    from ops.base.environments import Environment

# People trust the local authority by hand on each of their machines; asking them yearly would teach them to click
# warnings away. Its name constraints, not its age, bound what a stolen key can do.
AUTHORITY_DAYS = 3650
# The longest that Apple's systems accept from an authority a user added; others accept more.
LEAF_DAYS = 825
# A month leaves time for a person to act, and is more than any ACME client waits before it renews.
RENEW_DAYS = 30

# Clocks of containers and laptops differ a little.
_BACKDATED = timedelta(hours=1)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_AUTHORITY_NAME = "local authority"


@dataclass(frozen=True)
class Certificate:
    """What nginx shows.

    `days_left` counts whole days; `local`: signed by the authority that `self_sign` made; `issued`: made just now, so a
    running nginx must reload. `warning`: what some browsers will not like, "" when nothing is wrong.
    """

    path: Path
    names: tuple[str, ...]
    not_after: datetime
    local: bool
    issued: bool = False
    warning: str = ""

    @property
    def days_left(self) -> int:
        return (self.not_after - datetime.now(UTC)).days


def folder_of(env: Environment) -> Path:
    """The folder nginx mounts, holding fullchain.pem and privkey.pem."""
    return env.secrets_dir / "tls"


def authority_of(env: Environment) -> Path:
    """The certificate of the local authority: what a browser or `curl --cacert` must trust."""
    return env.secrets_dir / "ca.pem"


def ensure(env: Environment, hosts: Sequence[str] = ()) -> Certificate:
    """A usable certificate for DOMAIN and the host names that services have of their own.

    dev and staging: made when there is none, and our own is issued again when it is damaged, for other names or has
    less than RENEW_DAYS left. What somebody put there, and everything in prod, is only checked: OpsError says what is
    wrong and where it belongs.
    """
    if not issuable(env):
        return validate(env, hosts)
    with contextlib.suppress(OpsError):
        current = validate(env, hosts)
        local = set(_LOCAL_NAMES) <= set(current.names)
        if current.days_left >= RENEW_DAYS and (local or not current.local):
            return current
    return self_sign(env, hosts)


def issuable(env: Environment) -> bool:
    """Whether a deploy may make or replace the certificate: outside prod, when there is none or ours signed it.

    A certificate or a key that somebody put there cannot be recovered.
    """
    if env.name == "prod":
        return False
    chain_file, key_file = _files(env)
    if not os.path.lexists(chain_file) and not os.path.lexists(key_file):
        return True
    with contextlib.suppress(OpsError):
        return _is_local(env, _load_chain(chain_file, "")[0])
    return False


def _files(env: Environment) -> tuple[Path, Path]:
    """The certificate with its chain, and its key."""
    return folder_of(env) / "fullchain.pem", folder_of(env) / "privkey.pem"


def self_sign(env: Environment, hosts: Sequence[str] = ()) -> Certificate:
    """Issue a certificate from the local authority, which is made first if need be; for prod only on request."""
    env.secrets_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    domain = _domain(env)
    authority_key, authority = _authority(env, (domain, *hosts))
    key = ec.generate_private_key(ec.SECP256R1())
    names = list(dict.fromkeys((domain, *hosts, *_LOCAL_NAMES)))
    # No subject: clients read the alternative names only, and a common name is cut at 64 characters.
    leaf = (
        _builder(x509.Name([]), authority.subject, key.public_key(), LEAF_DAYS, authority.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    folder = folder_of(env)
    folder.mkdir(exist_ok=True)
    # nginx runs as another user; the folder above keeps everybody else out.
    folder.chmod(0o755)
    # This order: killed in between, it is told to be ours and made again.
    replace_file(folder / "fullchain.pem", _pem(leaf) + _pem(authority))
    replace_file(folder / "privkey.pem", _private_pem(key))
    return Certificate(folder / "fullchain.pem", tuple(names), leaf.not_valid_after_utc, local=True, issued=True)


def validate(env: Environment, hosts: Sequence[str] = ()) -> Certificate:
    """The certificate that is there. Raises OpsError when nginx could not use it, or no browser would accept it.

    hosts: names that it must cover beside DOMAIN, those that services have of their own.
    """
    folder = folder_of(env)
    chain_file, key_file = _files(env)
    put_there = f"Put the certificate with its chain and its key there: {relative(folder)}/{{fullchain,privkey}}.pem"
    if env.name == "prod":
        put_there += f"; for a first try: invoke certificate --self-signed --env {env.name}"
    else:
        put_there += f", or remove what is there and a deploy makes one: rm -r {relative(folder)}"
    for path in (chain_file, key_file):
        _check_links(path, folder)
        if not path.is_file():
            raise OpsError(f"{relative(path)} is missing.", put_there)
    chain = _load_chain(chain_file, put_there)
    leaf = chain[0]
    _check_key(key_file, leaf, put_there)
    for above, below in zip(chain[1:], chain, strict=False):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise OpsError(
                f"{relative(chain_file)} is out of order: {_name(below)} is not signed by the next, {_name(above)}.",
                "The order is: own certificate, who signed it, who signed that one; the root may be left out.",
            ) from error
    names = _names(leaf)
    if missing := [each for each in (_domain(env), *hosts) if not any(_covers(name, each) for name in names)]:
        raise OpsError(
            f"{relative(chain_file)} is for {', '.join(names) or 'no name'}, not for {', '.join(missing)}.", put_there
        )
    now = datetime.now(UTC)
    for certificate in chain:
        if certificate.not_valid_after_utc <= now:
            when = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
            raise OpsError(f"{relative(chain_file)}: {_name(certificate)} expired on {when}.", put_there)
        if certificate.not_valid_before_utc > now:
            start = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            raise OpsError(f"{relative(chain_file)}: {_name(certificate)} begins at {start}.", "Check the clock.")
    _check_openssl(chain_file, key_file, put_there)
    local = _is_local(env, leaf)
    warning = "" if local else _chain_warning(chain)
    return Certificate(chain_file, names, leaf.not_valid_after_utc, local=local, warning=warning)


def _domain(env: Environment) -> str:
    domain = env.values.get("DOMAIN", "")
    if not domain:
        raise OpsError(f"{relative(env.env_file)}: DOMAIN is not set.", "The certificate is issued for it.")
    return domain


# ── the local authority ───────────────────────────────────────────────────────────────────────────────────────────────


def _authority(env: Environment, names: Sequence[str]) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The authority on disk, or a new one when it is missing, damaged, about to expire or not meant for these names."""
    certificate_file, key_file = authority_of(env), env.secrets_dir / "ca.key"
    with contextlib.suppress(OSError, ValueError, TypeError, x509.ExtensionNotFound):
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        lasts = certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=LEAF_DAYS)
        permitted = all(_permits(constraints.permitted_subtrees or [], each) for each in names)
        usable = lasts and permitted and key.public_key() == certificate.public_key()
        if usable and isinstance(key, ec.EllipticCurvePrivateKey):
            return key, certificate
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, env.project[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{env.project[:40]} {_AUTHORITY_NAME}"),
        ]
    )
    # Whoever trusts this authority trusts it for these names only.
    permitted_names = [_constraint(name) for name in dict.fromkeys((*names, "localhost", "127.0.0.0/8", "::1/128"))]
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signs_certificates(), critical=True)
        .add_extension(x509.NameConstraints(permitted_names, excluded_subtrees=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    replace_file(key_file, _private_pem(key), mode=0o600)
    replace_file(certificate_file, _pem(certificate))
    return key, certificate


def _is_local(env: Environment, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_of(env).read_bytes()))
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, limit: datetime | None = None
) -> x509.CertificateBuilder:
    start = datetime.now(UTC).replace(microsecond=0) - _BACKDATED
    # The last second counts as well: exactly `days`, not a second more, or strict clients refuse it.
    end = start + timedelta(days=days) - timedelta(seconds=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(end, limit) if limit else end)
    )


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _constraint(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _permits(subtrees: Sequence[x509.GeneralName], name: str) -> bool:
    """Whether an authority with these name constraints may sign for a name: its own one, or one below it."""
    allowed = [each.value for each in subtrees if isinstance(each, x509.DNSName)]
    return _constraint(name) in subtrees or any(name.endswith(f".{each}") for each in allowed)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# ── reading what somebody put there ───────────────────────────────────────────────────────────────────────────────────


def _load_chain(path: Path, put_there: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise OpsError(f"{relative(path)} holds no readable certificate.", put_there) from error
    except OSError as error:
        raise OpsError(f"{relative(path)} cannot be read: {error.strerror}.", "Run this as its owner.") from error


def _check_links(path: Path, folder: Path) -> None:
    """Raise OpsError for a link that leads out of the folder: nginx mounts the folder and nothing else."""
    if not path.is_symlink():
        return
    target = path.readlink()
    if target.is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise OpsError(
            f"{relative(path)} is a link to {target}, which nginx cannot see: it has only {relative(folder)}.",
            f"Copy the file, after each renewal too: cp --remove-destination {path.resolve()} {relative(path)}",
        )


def _check_openssl(chain_file: Path, key_file: Path, put_there: str) -> None:
    """Raise OpsError for what OpenSSL, and so nginx, does not read, such as an indented file."""
    try:
        # An empty passphrase, or it would ask for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain_file, key_file, password="")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise OpsError(
            f"nginx cannot read {relative(chain_file)} or its key: {reason}.",
            f"Lines must not be indented, and only PEM blocks may be in it. {put_there}",
        ) from error


def _chain_warning(chain: list[x509.Certificate]) -> str:
    if len(chain) > 1 or chain[0].issuer == chain[0].subject:
        return ""
    issuer = chain[0].issuer.rfc4514_string()
    return f"the certificate of its issuer ({issuer}) is not in the file: some clients refuse it"


def _check_key(path: Path, leaf: x509.Certificate, put_there: str) -> None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:
        raise OpsError(
            f"{relative(path)} is protected by a passphrase, which nginx could not ask for.",
            f"openssl pkey -in {relative(path)} -out privkey.open && mv privkey.open {relative(path)}",
        ) from error
    except ValueError as error:
        raise OpsError(f"{relative(path)} holds no readable private key.", put_there) from error
    except OSError as error:
        raise OpsError(f"{relative(path)} cannot be read: {error.strerror}.", "Run this as its owner.") from error
    if key.public_key() != leaf.public_key():
        raise OpsError(f"{relative(path)} is not the key of the certificate beside it.", put_there)
    if os.name != "posix":
        return
    # Readable by nginx's user inside, and by nobody else outside: the folders above must be closed.
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IROTH:
        raise OpsError(f"{relative(path)}: mode {mode:04o} hides it from nginx.", f"chmod 0444 {relative(path)}")
    if mode & 0o022:
        raise OpsError(f"{relative(path)}: mode {mode:04o} lets others write it.", f"chmod 0444 {relative(path)}")
    outer = path.parent.parent
    if stat.S_IMODE(outer.stat().st_mode) & 0o077:
        raise OpsError(
            f"{relative(outer)} is open to other users, so is the key in it.", f"chmod 0700 {relative(outer)}"
        )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def _covers(name: str, domain: str) -> bool:
    """Whether a certificate for `name` is good for `domain`; a * stands for exactly one label."""
    name, domain = name.lower(), domain.lower()
    if name.startswith("*."):
        return domain.partition(".")[2] == name[2:]
    return name == domain


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or ", ".join(_names(certificate)) or "a certificate without a name"
