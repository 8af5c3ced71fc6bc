"""The items."""

import uuid
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, StringConstraints

from api.cache import Cache
from api.items import Item, event, now, uuid7
from api.store import Store
from stack import log
from stack.problems import Problem, documented
from stack.tokens import InvalidToken, Keys, Principal

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Body = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,200}$")]

_scheme = HTTPBearer(auto_error=False, description="the access token that POST /api/v1/auth/login answers with")
routes = APIRouter(responses=documented(400, 401, 422, 503))
_NOT_FOUND = documented(404)


class NewItem(BaseModel):
    """The fields of a new item."""

    title: Title
    body: Body = ""


class Change(BaseModel):
    """The fields to change. Fields that are left out keep their values."""

    title: Title | None = None
    body: Body | None = None


class ItemPage(BaseModel):
    """Some items, newest first, and the value of `before` for those that follow."""

    items: list[dict[str, Any]]
    next: str | None = Field(default=None, description="null when there are no more")


# Coroutines, although nothing here waits: FastAPI would run plain functions in a thread pool on each request.
async def principal(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)]
) -> Principal:
    """The authenticated user.

    Raises:
        Problem: 401, no valid access token.
    """
    keys: Keys = request.app.state.keys
    try:
        return keys.verify(given.credentials if given else "")
    except InvalidToken:
        raise Problem(401, "log in first", {"WWW-Authenticate": "Bearer"}) from None


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _cache(request: Request) -> Cache:
    cache: Cache = request.app.state.cache
    return cache


Person = Annotated[Principal, Depends(principal)]
StoreOf = Annotated[Store, Depends(_store)]
CacheOf = Annotated[Cache, Depends(_cache)]


def _scope(person: Principal) -> uuid.UUID | None:
    return None if person.is_admin else person.id


@routes.post("/api/v1/items", status_code=201)
async def create(
    new: NewItem, person: Person, store: StoreOf, request: Request, response: Response, key: Key = None
) -> dict[str, Any]:
    """Create an item. With an `Idempotency-Key` the request can be repeated without creating a second one."""
    moment = now()
    item = Item(uuid7(), person.id, person.email, new.title, new.body, moment, moment)
    told = event("item.created", item, log.request_id())
    written = await store.create(item, told, key)
    request.app.state.wake()
    response.headers["Location"] = f"/api/v1/items/{written.item.id}"
    if written.repeated:
        response.headers["Idempotency-Replayed"] = "true"
    return written.item.as_json()


@routes.get("/api/v1/items")
async def list_items(
    person: Person,
    store: StoreOf,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: uuid.UUID | None = None,
) -> ItemPage:
    """List your own items, newest first. Admins see all items."""
    found, source = await store.list(_scope(person), person.id, limit + 1, before)
    response.headers["X-Database"] = source
    page = found[:limit]
    return ItemPage(items=[i.as_json() for i in page], next=str(page[-1].id) if len(found) > limit else None)


@routes.get("/api/v1/items/{item_id}", responses=_NOT_FOUND)
async def get(
    item_id: uuid.UUID,
    person: Person,
    store: StoreOf,
    cache: CacheOf,
    response: Response,
    fresh: Annotated[bool, Query(description="do not use the cache")] = False,
) -> dict[str, Any]:
    """Get one item."""
    item, outcome = (None, "bypass") if fresh else await cache.get(item_id)
    if item is None:
        # A cache that was passed over because the item has just changed means that a replica may not have it yet.
        item, source = await store.get(item_id, _scope(person), person.id, primary=outcome == "bypass" and not fresh)
        response.headers["X-Database"] = source
        if item and outcome == "miss":
            await cache.fill(item)
    response.headers["X-Cache"] = outcome
    return _visible(item, person).as_json()


@routes.patch("/api/v1/items/{item_id}", responses=_NOT_FOUND)
async def change(
    item_id: uuid.UUID, wanted: Change, person: Person, store: StoreOf, cache: CacheOf, request: Request
) -> dict[str, Any]:
    """Change an item."""
    old = _visible((await store.get(item_id, _scope(person), person.id, primary=True))[0], person)
    title, body = wanted.title or old.title, old.body if wanted.body is None else wanted.body
    item = replace(old, title=title, body=body, updated_at=now())
    told = event("item.changed", item, log.request_id())
    await cache.changed(item_id)
    if not await store.change(item, told, person.id):
        raise Problem(404, "this item does not exist")
    await cache.changed(item_id)
    request.app.state.wake()
    return item.as_json()


@routes.delete("/api/v1/items/{item_id}", status_code=204, responses=_NOT_FOUND)
async def delete(item_id: uuid.UUID, person: Person, store: StoreOf, cache: CacheOf, request: Request) -> None:
    """Delete an item."""
    item = _visible((await store.get(item_id, _scope(person), person.id, primary=True))[0], person)
    told = event("item.deleted", item, log.request_id())
    await cache.changed(item_id)
    if not await store.delete(item, told, person.id):
        raise Problem(404, "this item does not exist")
    await cache.changed(item_id)
    request.app.state.wake()


def _visible(item: Item | None, person: Principal) -> Item:
    if item is None or not (person.is_admin or item.owner_id == person.id):
        raise Problem(404, "this item does not exist")
    return item
