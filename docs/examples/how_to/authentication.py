import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import trio

from trio_streamrpc import (
    Call,
    Handshake,
    PermissionDenied,
    Unauthenticated,
    connect,
    current_call,
    rpc,
    serve,
)
from trio_streamrpc.interceptors import authorize


@dataclass(frozen=True)
class User:
    name: str
    is_admin: bool = False


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


#: In a real program these are rows of a database; the tokens themselves are not kept.
USERS: Mapping[str, User] = {
    digest("ada's token"): User("ada", is_admin=True),
    digest("bob's token"): User("bob"),
}


async def authenticate(handshake: Handshake) -> User:
    token = handshake.metadata.get("token")
    user = USERS.get(digest(token)) if isinstance(token, str) else None
    if user is None:
        raise Unauthenticated("a token that is known, please")
    return user


def may(call: Call) -> bool:
    user: User = call.identity
    return user.is_admin or call.method != "shut_down"


class Machine:
    @rpc
    async def greet(self) -> str:
        user: User = current_call().identity
        return f"hello, {user.name}"

    @rpc
    async def shut_down(self) -> str:
        return "it is off"


async def main() -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(serve, authenticate=authenticate, interceptors=[authorize(may)])
        server = await nursery.start(serving, Machine(), "ws://127.0.0.1:0")

        async with connect(server.url, metadata={"token": "bob's token"}) as connection:
            machine = connection.proxy(Machine)
            print(await machine.greet())
            try:
                await machine.shut_down()
            except PermissionDenied as error:
                print("bob:", error)

        async with connect(server.url, metadata={"token": "ada's token"}) as connection:
            print("ada:", await connection.proxy(Machine).shut_down())

        try:
            async with connect(server.url) as connection:
                print("this is not reached")
        except Unauthenticated as error:
            print("nobody:", error)

        nursery.cancel_scope.cancel()


trio.run(main)
