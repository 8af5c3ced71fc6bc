"""The certificate: made for dev and staging, checked for prod."""

import dataclasses
import ipaddress
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from ops.base import environments
from ops.base.errors import OpsError
from ops.secrets import certificates

NOW = datetime.now(UTC)


def with_domain(env, domain):
    return dataclasses.replace(env, values={**env.values, "DOMAIN": domain})


@pytest.fixture
def env(env):
    env.secrets_dir.chmod(0o700)
    return with_domain(env, "acme.example")


@pytest.fixture
def prod(project):
    loaded = environments.load("prod", project)
    loaded.secrets_dir.chmod(0o700)
    return with_domain(loaded, "acme.example")


def leaf_of(env):
    return x509.load_pem_x509_certificate((env.secrets_dir / "tls/fullchain.pem").read_bytes())


def mode(path):
    return path.stat().st_mode & 0o777


# ── made ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_certificate_is_issued_once(env):
    first = certificates.ensure(env)
    assert first.issued and first.local
    assert first.names == ("acme.example", "localhost", "127.0.0.1", "::1")
    content = first.path.read_bytes()
    second = certificates.ensure(env)
    assert not second.issued and second.local
    assert second.path.read_bytes() == content
    assert 820 <= second.days_left <= 825 == certificates.LEAF_DAYS


def test_its_files(env):
    certificates.ensure(env)
    assert mode(env.secrets_dir) == 0o700
    assert mode(env.secrets_dir / "tls") == 0o755
    assert mode(env.secrets_dir / "tls/privkey.pem") == mode(env.secrets_dir / "tls/fullchain.pem") == 0o444
    assert mode(env.secrets_dir / "ca.key") == 0o600
    assert sorted(path.name for path in env.secrets_dir.rglob("*")) == [
        "ca.key", "ca.pem", "fullchain.pem", "privkey.pem", "tls",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["acme.example", "localhost", "127.0.0.1", "::1"])
def test_a_strict_client_accepts_it(env, name):
    certificates.ensure(env)
    authority = x509.load_pem_x509_certificate(certificates.authority_of(env).read_bytes())
    try:
        subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    builder = verification.PolicyBuilder().store(verification.Store([authority])).time(datetime.now(UTC))
    chain = builder.build_server_verifier(subject).verify(leaf_of(env), [])
    assert len(chain) == 2


def test_openssl_accepts_it(env):
    tls = certificates.ensure(env).path
    authority = certificates.authority_of(env)
    command = ["openssl", "verify", "-x509_strict", "-verify_hostname", "acme.example", "-CAfile", authority, tls]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls, tls.with_name("privkey.pem"))


def test_the_authority_vouches_for_nothing_else(env):
    certificates.ensure(env)
    constraints = x509.load_pem_x509_certificate(certificates.authority_of(env).read_bytes()).extensions
    permitted = constraints.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert {str(name.value) for name in permitted} == {"acme.example", "localhost", "127.0.0.0/8", "::1/128"}


def test_it_is_issued_again_for_another_domain(env):
    certificates.ensure(env)
    other = with_domain(env, "other.example")
    assert certificates.ensure(other).issued
    assert not certificates.ensure(other).issued
    assert leaf_of(env).extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == ["other.example", "localhost"]


def test_it_is_for_the_host_names_of_services_too(env):
    """One below the domain the authority may sign for as it is; another needs a new authority, and a new import."""
    certificates.ensure(env)
    authority = certificates.authority_of(env).read_bytes()
    below = certificates.ensure(env, ["shop.acme.example"])
    assert below.issued and below.names[:2] == ("acme.example", "shop.acme.example")
    assert certificates.authority_of(env).read_bytes() == authority
    assert not certificates.ensure(env, ["shop.acme.example"]).issued
    assert certificates.ensure(env, ["shop.test"]).issued
    assert certificates.authority_of(env).read_bytes() != authority
    made = x509.load_pem_x509_certificate(certificates.authority_of(env).read_bytes())
    builder = verification.PolicyBuilder().store(verification.Store([made])).time(datetime.now(UTC))
    builder.build_server_verifier(x509.DNSName("shop.test")).verify(leaf_of(env), [])


def test_it_is_issued_again_in_time_by_the_same_authority(env, monkeypatch):
    monkeypatch.setattr(certificates, "LEAF_DAYS", certificates.RENEW_DAYS)
    certificates.ensure(env)
    authority = certificates.authority_of(env).read_bytes()
    monkeypatch.undo()
    assert certificates.ensure(env).issued
    assert certificates.authority_of(env).read_bytes() == authority
    assert not certificates.ensure(env).issued


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n", None])
def test_it_is_issued_again_when_its_key_is_damaged(env, damage):
    certificates.ensure(env)
    path = env.secrets_dir / "tls/privkey.pem"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
        path.chmod(0o444)
    assert certificates.ensure(env).issued
    assert not certificates.ensure(env).issued


def test_a_real_certificate_in_staging_is_left_alone(env):
    put(env, [certificate("acme.example")])
    assert not certificates.ensure(env).issued


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda env: (env.secrets_dir / "tls/privkey.pem").chmod(0o600), "hides it from nginx"),
        (lambda env: put(env, [certificate("acme.example", start=NOW - timedelta(days=91))]), "expired on"),
        (lambda env: put(env, [certificate("old.example")]), "is for old.example"),
        (lambda env: nonsense(env, "fullchain.pem"), "no readable certificate"),
        (lambda env: (env.secrets_dir / "tls/fullchain.pem").unlink(), "is missing"),
    ],
)
def test_what_somebody_put_there_is_never_replaced(env, spoil, message):
    certificates.self_sign(env)  # so that there is an authority that could issue one
    put(env, [certificate("acme.example")])
    spoil(env)
    before = {path: path.read_bytes() for path in (env.secrets_dir / "tls").iterdir()}
    assert not certificates.issuable(env)
    with pytest.raises(OpsError, match=message):
        certificates.ensure(env)
    assert {path: path.read_bytes() for path in (env.secrets_dir / "tls").iterdir()} == before


def test_a_kill_while_it_is_made_leaves_one_that_is_made_again(env, monkeypatch):
    written = []

    def killed(target, content, mode=0o444):
        if target.name == "privkey.pem":
            raise KeyboardInterrupt
        target.write_bytes(content)
        written.append(target)

    monkeypatch.setattr(certificates, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        certificates.ensure(env)
    assert written
    monkeypatch.undo()
    assert certificates.ensure(env).issued


# ── checked ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def certificate(name, issuer=None, *, start=NOW - timedelta(days=1), days=90, authority=False):
    """A certificate and its key, signed by another pair or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer_name, signer_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(signer_key, hashes.SHA256()), key


def put(env, chain, key=None, password=None):
    folder = env.secrets_dir / "tls"
    folder.mkdir(exist_ok=True)
    pem = b"".join(each[0].public_bytes(serialization.Encoding.PEM) for each in chain)
    (folder / "fullchain.pem").write_bytes(pem)
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = (key or chain[0][1]).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    (folder / "privkey.pem").write_bytes(private)
    for path in folder.iterdir():
        path.chmod(0o444)


@pytest.fixture
def chain():
    root = certificate("Root", authority=True)
    intermediate = certificate("Intermediate", root, authority=True)
    return [certificate("acme.example", intermediate), intermediate, root]


def test_nothing_is_made_up_for_prod(prod):
    with pytest.raises(OpsError, match="fullchain.pem is missing") as caught:
        certificates.ensure(prod)
    assert "config/prod/secrets/tls/{fullchain,privkey}.pem" in caught.value.remedy
    assert list(prod.secrets_dir.iterdir()) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_good_chain_is_accepted(prod, chain, length):
    put(prod, chain[:length])
    found = certificates.ensure(prod)
    assert found.names == ("acme.example",)
    assert not found.local and not found.issued
    assert found.days_left == 88


def test_a_provided_one_must_cover_the_host_names_of_services(prod, chain):
    put(prod, chain)
    with pytest.raises(OpsError, match=r"is for acme\.example, not for shop\.example, blog\.example\.") as caught:
        certificates.ensure(prod, ["shop.example", "blog.example"])
    assert "Put the certificate" in caught.value.remedy


def test_a_wildcard_covers_one_label(prod):
    put(prod, [certificate("*.example")])
    certificates.ensure(prod)
    with pytest.raises(OpsError, match="not for a.acme.example"):
        certificates.ensure(with_domain(prod, "a.acme.example"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda prod, chain: put(prod, chain, key=chain[1][1]), "is not the key"),
        (lambda prod, chain: put(prod, [chain[0], chain[2], chain[1]]), "out of order"),
        (lambda prod, chain: put(prod, [chain[1], chain[0]]), "out of order"),
        (lambda prod, chain: put(prod, [certificate("other.example")]), "is for other.example, not for acme.example"),
        (lambda prod, chain: put(prod, [certificate("acme.example", start=NOW - timedelta(days=91))]), "expired on"),
        (lambda prod, chain: put(prod, [certificate("acme.example", start=NOW + timedelta(days=1))]), "begins at"),
        (lambda prod, chain: put(prod, chain, password=b"secret"), "protected by a passphrase"),
        (lambda prod, chain: nonsense(prod, "fullchain.pem"), "no readable certificate"),
        (lambda prod, chain: nonsense(prod, "privkey.pem"), "no readable private key"),
        (lambda prod, chain: hidden(prod, chain, 0o400), "hides it from nginx"),
        (lambda prod, chain: hidden(prod, chain, 0o666), "lets others write"),
        (lambda prod, chain: (put(prod, chain), prod.secrets_dir.chmod(0o755)), "is open to other users"),
        (lambda prod, chain: indented(prod, chain), "nginx cannot read"),
        (lambda prod, chain: linked(prod, chain, absolute=True), "is a link to .*, which nginx cannot see"),
        (lambda prod, chain: linked(prod, chain, absolute=False), "is a link to .*, which nginx cannot see"),
    ],
)
def test_what_is_refused(prod, chain, make, message):
    make(prod, chain)
    with pytest.raises(OpsError, match=message) as caught:
        certificates.ensure(prod)
    assert caught.value.remedy
    assert not certificates.authority_of(prod).exists()


def nonsense(env, name):
    put(env, [certificate("acme.example")])
    path = env.secrets_dir / "tls" / name
    path.chmod(0o644)
    path.write_text("nonsense")
    path.chmod(0o444)


def indented(env, chain):
    put(env, chain)
    path = env.secrets_dir / "tls/fullchain.pem"
    path.chmod(0o644)
    path.write_text("".join(f"    {line}" for line in path.read_text().splitlines(keepends=True)))
    path.chmod(0o444)


def linked(env, chain, absolute):
    """As certbot leaves it: tls/fullchain.pem leads to live/ outside of the folder."""
    put(env, chain)
    path = env.secrets_dir / "tls/fullchain.pem"
    live = env.secrets_dir / "fullchain1.pem"
    path.rename(live)
    path.symlink_to(live if absolute else "../fullchain1.pem")


def test_a_link_inside_of_the_folder_is_fine(prod, chain):
    put(prod, chain)
    folder = prod.secrets_dir / "tls"
    (folder / "archive").mkdir()
    (folder / "fullchain.pem").rename(folder / "archive/1.pem")
    (folder / "fullchain.pem").symlink_to("archive/1.pem")
    assert certificates.ensure(prod).names == ("acme.example",)


def test_a_missing_intermediate_is_a_warning(prod, chain):
    put(prod, chain[:1])
    assert "CN=Intermediate" in certificates.validate(prod).warning
    put(prod, chain[:2])
    assert certificates.validate(prod).warning == ""


def hidden(env, chain, mode):
    put(env, chain)
    (env.secrets_dir / "tls/privkey.pem").chmod(mode)


def test_prod_takes_one_of_the_local_authority_on_request_only(prod):
    made = certificates.self_sign(prod)
    assert made.issued and made.local
    found = certificates.ensure(prod)
    assert found.local and not found.issued
    with pytest.raises(OpsError, match="not for other.example"):
        certificates.ensure(with_domain(prod, "other.example"))
