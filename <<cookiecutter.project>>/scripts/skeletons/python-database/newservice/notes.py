"""The table `notes` of new-service. Its columns come from migrations/: a migration only adds, see services/README.md."""

from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stack.database import Database


class Notes(Protocol):
    """What is written down."""

    async def add(self, note: str) -> None:
        """Write one down."""

    async def newest(self) -> list[str]:
        """The newest ones."""


class PostgresNotes:
    """Notes in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, note: str) -> None:
        """Write one down."""

        async def insert(connection: AsyncConnection) -> None:
            await connection.execute(text("insert into notes (text) values (:text)"), {"text": note})

        # Once: when the answer to a commit is lost, it would be written twice.
        await self._database.once(insert)

    async def newest(self) -> list[str]:
        """The newest ones."""

        async def select(connection: AsyncConnection) -> list[str]:
            return list((await connection.execute(text("select text from notes order by id desc limit 100"))).scalars())

        return await self._database.run(select)
