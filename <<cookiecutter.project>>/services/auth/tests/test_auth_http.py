import asyncio
import uuid

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from auth import admin
from auth.app import create_app
from auth.settings import AuthSettings
from stack.settings import load
from stack.tokens import Keys

CREDENTIALS = {"email": "Ann@Example.com", "password": "correct horse battery"}


@pytest.fixture
def app(secrets, store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_HOSTS", "nowhere")
    monkeypatch.setenv("LOGIN_ATTEMPTS", "3")
    return create_app(store=store)


async def registered(client) -> dict:
    answer = await client.post("/v1/auth/register", json=CREDENTIALS)
    assert answer.status_code == 201
    return answer.json()


async def logged_in(client) -> dict:
    answer = await client.post("/v1/auth/login", json=CREDENTIALS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def refreshed(client, token: str):
    return await client.post("/v1/auth/refresh", json={"refresh_token": token})


async def test_register_and_log_in(app, client_of) -> None:
    async with client_of(app) as client:
        user = await registered(client)
        assert user == {"id": user["id"], "email": "ann@example.com", "roles": ["user"]}
        tokens = await logged_in(client)
        assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
        principal = Keys(SecretStr("a" * 64)).verify(tokens["access_token"])
        assert (str(principal.id), principal.email, principal.roles) == (user["id"], user["email"], {"user"})
        me = await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
        assert me.json() == user


async def test_an_address_can_be_taken_once(app, client_of) -> None:
    async with client_of(app) as client:
        await registered(client)
        again = await client.post("/v1/auth/register", json={**CREDENTIALS, "email": "ANN@example.com"})
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("change", "field"),
    [({"email": "nobody"}, "email"), ({"password": "too short"}, "password"), ({"password": None}, "password")],
)
async def test_what_will_not_do_is_named(app, client_of, change: dict, field: str) -> None:
    async with client_of(app) as client:
        answer = await client.post("/v1/auth/register", json=CREDENTIALS | change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


async def test_wrong_password_and_unknown_address_look_alike(app, client_of) -> None:
    async with client_of(app) as client:
        await registered(client)
        wrong = await client.post("/v1/auth/login", json={**CREDENTIALS, "password": "not the password"})
        unknown = await client.post("/v1/auth/login", json={**CREDENTIALS, "email": "eve@example.com"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["detail"] == unknown.json()["detail"]


async def attempt(client, address: str, email: str = "ann@example.com", password: str = "not the password"):
    headers = {"X-Forwarded-For": address}
    return await client.post("/v1/auth/login", json={"email": email, "password": password}, headers=headers)


@pytest.fixture(params=["memory", "postgresql"])
def limited(request, secrets, store, passwords, monkeypatch: pytest.MonkeyPatch):
    """The application with three attempts, over each store."""
    monkeypatch.setattr("auth.app.Passwords", lambda: passwords)
    monkeypatch.setenv("LOGIN_ATTEMPTS", "3")
    monkeypatch.setenv("DATABASE_HOSTS", "nowhere")
    if request.param == "memory":
        return create_app(store=store)
    cluster = request.getfixturevalue("cluster")
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.primary}:5432")
    return create_app()


@pytest.mark.parametrize("email", ["ann@example.com", "unknown@example.com"])
async def test_a_client_waits_after_many_failures(limited, client_of, email: str) -> None:
    async with client_of(limited) as client:
        await registered(client)
        answers = [await attempt(client, "192.0.2.1", email) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert [0 < int(answer.headers["retry-after"]) <= 15 for answer in answers[3:]] == [True, True]
        assert (await attempt(client, "192.0.2.1", email, CREDENTIALS["password"])).status_code == 429


async def test_nobody_can_use_up_the_attempts_of_the_owner(limited, client_of) -> None:
    async with client_of(limited) as client:
        await registered(client)
        # Far more failures than are taken for guessing from many places, from so many places.
        for number in range(40):
            await attempt(client, f"192.0.2.{number}")
        assert (await attempt(client, "192.0.2.200")).status_code == 401
        assert (await attempt(client, "192.0.2.200")).status_code == 429  # one attempt each, for as long as it lasts
        assert (await attempt(client, "198.51.100.7", password=CREDENTIALS["password"])).status_code == 200
        assert (await attempt(client, "198.51.100.7", password=CREDENTIALS["password"])).status_code == 200


async def test_attempts_that_come_together_cannot_pass_the_limit(limited, client_of) -> None:
    async with client_of(limited) as client:
        await registered(client)
        answers = await asyncio.gather(*(attempt(client, "192.0.2.1") for _ in range(60)))
    assert sorted(answer.status_code for answer in answers) == [401] * 3 + [429] * 57


async def test_the_wait_grows_and_ends(cluster, secrets, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.primary}:5432")
    monkeypatch.setenv("LOGIN_ATTEMPTS", "2")

    def later(seconds: int) -> None:
        cluster.execute(f"update auth.login_failures set since = since - interval '{seconds} s'")

    async with client_of(create_app()) as client:
        await registered(client)
        for _ in range(2):
            assert (await attempt(client, "192.0.2.1")).status_code == 401
        for wait in (15, 30, 60, 120, 240, 480):
            refused = await attempt(client, "192.0.2.1")
            assert (refused.status_code, wait - 3 <= int(refused.headers["retry-after"]) <= wait + 1) == (429, True)
            later(wait)
            assert (await attempt(client, "192.0.2.1")).status_code == 401
        refused = await attempt(client, "192.0.2.1")
        assert 897 <= int(refused.headers["retry-after"]) <= 901
        later(901)
        for _ in range(2):
            assert (await attempt(client, "192.0.2.1")).status_code == 401
        assert (await attempt(client, "192.0.2.1")).status_code == 429


async def test_a_success_forgets_the_failures(app, client_of) -> None:
    async with client_of(app) as client:
        await registered(client)
        for _ in range(3):
            for _ in range(2):
                await client.post("/v1/auth/login", json={**CREDENTIALS, "password": "not the password"})
            await logged_in(client)


async def test_a_refresh_token_works_once(app, client_of, store) -> None:
    async with client_of(app) as client:
        await registered(client)
        first = (await logged_in(client))["refresh_token"]
        assert first.encode() not in store.tokens  # only its digest is kept
        second = (await refreshed(client, first)).json()["refresh_token"]
        assert second != first
        other = (await logged_in(client))["refresh_token"]
        # Used again: one of the two holders is a thief, so this login ends for both; other logins go on.
        assert (await refreshed(client, first)).status_code == 401
        assert (await refreshed(client, second)).status_code == 401
        assert (await refreshed(client, other)).status_code == 200


async def test_log_out(app, client_of) -> None:
    async with client_of(app) as client:
        await registered(client)
        token = (await logged_in(client))["refresh_token"]
        assert (await client.post("/v1/auth/logout", json={"refresh_token": token})).status_code == 204
        assert (await refreshed(client, token)).status_code == 401
        assert (await client.post("/v1/auth/logout", json={"refresh_token": "unknown"})).status_code == 204


async def test_me_without_a_token(app, client_of) -> None:
    async with client_of(app) as client:
        assert (await client.get("/v1/auth/me")).status_code == 401


async def test_roles(app, client_of, store) -> None:
    async with client_of(app) as client:
        await registered(client)
        options = admin.parse(["grant", "ANN@example.com", "admin"])
        assert await admin.act(store, options) == "ann@example.com: admin, user"
        token = (await logged_in(client))["access_token"]
        assert Keys(SecretStr("a" * 64)).verify(token).is_admin
        assert await admin.act(store, admin.parse(["revoke", "ann@example.com", "admin"])) == "ann@example.com: user"
        with pytest.raises(ValueError, match="no account"):
            await admin.act(store, admin.parse(["grant", "eve@example.com", "admin"]))


async def test_a_hash_with_old_parameters_is_renewed(app, client_of, store) -> None:
    async with client_of(app) as client:
        user = uuid.UUID((await registered(client))["id"])
        old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(CREDENTIALS["password"])
        await store.set_password_hash(user, old)
        await logged_in(client)
    assert store.users[user].password_hash != old


async def test_it_starts_without_its_database(secrets, client_of, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", str(tmp_path))
    monkeypatch.setenv("DATABASE_DEADLINE", "0.5")
    async with client_of(create_app()) as client:
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["database", "database-replica"])
        assert (await client.get("/health/live")).status_code == 200
        login = await client.post("/v1/auth/login", json=CREDENTIALS)
        assert (login.status_code, login.headers["retry-after"]) == (503, "2")


async def test_with_a_real_database(cluster, secrets, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.standby}:5432,{cluster.primary}:5432")
    monkeypatch.setenv("LOGIN_ATTEMPTS", "3")
    app = create_app()
    async with client_of(app) as client:
        user = await registered(client)
        assert (await client.post("/v1/auth/register", json=CREDENTIALS)).status_code == 409
        first = (await logged_in(client))["refresh_token"]
        second = (await refreshed(client, first)).json()["refresh_token"]
        assert (await refreshed(client, first)).status_code == 401
        assert (await refreshed(client, second)).status_code == 401
        # Of many who come with the same token at once only one can be right.
        token = (await logged_in(client))["refresh_token"]
        statuses = sorted(a.status_code for a in await asyncio.gather(*(refreshed(client, token) for _ in range(5))))
        assert statuses == [200, 401, 401, 401, 401]
        me = await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {_access(user, app)}"})
        assert me.json() == user
        assert (await client.get("/health/ready")).json()["status"] == "ready"


async def test_without_a_primary_people_stay_who_they_are(cluster, secrets, client_of, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.standby}:5432,{cluster.primary}:5432")
    async with client_of(create_app()) as client:
        user = (await client.post("/v1/auth/register", json={**CREDENTIALS, "email": "eve@example.com"})).json()
    cluster.caught_up()
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.standby}:5432")
    monkeypatch.setenv("DATABASE_DEADLINE", "2")
    app = create_app()
    async with client_of(app) as client:
        bearer = {"Authorization": f"Bearer {_access(user, app)}"}
        assert (await client.get("/v1/auth/me", headers=bearer)).json() == user
        refused = await client.post("/v1/auth/login", json=CREDENTIALS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert (await client.get("/health/ready")).json()["missing"] == ["database"]


def _access(user: dict, app) -> str:
    from stack.tokens import Principal

    settings = app.state.settings
    return Keys(settings.jwt_secret).sign(Principal(uuid.UUID(user["id"]), user["email"], frozenset(user["roles"])))


def test_a_short_signing_key_is_refused(secrets, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", "a")
    (secrets / "JWT_SECRET").write_text("short")
    with pytest.raises(SystemExit):
        load(AuthSettings)
    assert "secret JWT_SECRET in" in capsys.readouterr().out


@pytest.mark.parametrize("kept", ["memory", "postgresql"])
async def test_no_bytes_make_it_fail(
    secrets, client_of, attack, monkeypatch, request, store, passwords, kept: str
) -> None:
    monkeypatch.setattr("auth.app.Passwords", lambda: passwords)
    if kept == "postgresql":
        cluster = request.getfixturevalue("cluster")
        monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.primary}:5432")
        app = create_app()
    else:
        monkeypatch.setenv("DATABASE_HOSTS", "nowhere")
        app = create_app(store=store)
    async with client_of(app) as client:
        user = await registered(client)
        bearer = [(b"authorization", f"Bearer {_access(user, app)}".encode())]
        example = CREDENTIALS | {"refresh_token": "x"}
        stored = kept == "postgresql"
        assert await attack(app, bearer, example, as_form=False, stored=stored).failures() == []
