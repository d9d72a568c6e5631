import functools
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trio

from trio_streamrpc import connect, rpc, serve


@dataclass
class Book:
    title: str
    year: int


class Catalogue:
    def __init__(self, path: Path) -> None:
        # A cursor is used in whatever thread is free, by one call at a time.
        self._connect = functools.partial(sqlite3.connect, path, check_same_thread=False)

    @rpc
    async def books(self, since: int) -> AsyncIterator[Book]:
        database = await trio.to_thread.run_sync(self._connect)
        try:
            query = "SELECT title, year FROM books WHERE year >= ? ORDER BY year"
            cursor = await trio.to_thread.run_sync(database.execute, query, (since,))
            while rows := await trio.to_thread.run_sync(cursor.fetchmany, 100):
                for title, year in rows:
                    yield Book(title, year)
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.to_thread.run_sync(database.close)
            print("server: the cursor is closed")


def fill(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE books (title TEXT, year INTEGER)")
    rows = ((f"Volume {number}", 1500 + number % 500) for number in range(10_000))
    database.executemany("INSERT INTO books VALUES (?, ?)", rows)
    database.commit()
    database.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "books.db")
        fill(path)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, Catalogue(path), "ws://127.0.0.1:0")
            async with connect(server.url) as connection:
                catalogue = connection.proxy(Catalogue)
                with trio.fail_after(10):
                    async with catalogue.books(since=1900) as books:
                        async for book in books:
                            print(book)
                            if book.title == "Volume 1400":
                                break
                print("client: the block is left")
            nursery.cancel_scope.cancel()


trio.run(main)
