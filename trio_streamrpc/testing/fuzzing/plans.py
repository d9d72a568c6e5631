"""What is done with a service in one example: calls, some of them at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cattrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing.networks import Network
from trio_streamrpc.testing.strategies.calls import ServiceCall, service_calls
from trio_streamrpc.testing.strategies.frames import encodings

__all__ = ["Plan", "alone", "is_of", "plans", "smaller"]


#: How many items a caller stays for.
MOST_ITEMS: Final = 5

PERFECT: Final = Network()


@dataclass(frozen=True)
class Plan:
    """Calls, one group after the other; those of one group run at the same time."""

    groups: tuple[tuple[ServiceCall, ...], ...]
    encoding: Encoding = "msgpack"
    network: Network = PERFECT

    @property
    def calls(self) -> list[ServiceCall]:
        """All of them, in order."""
        return [call for group in self.groups for call in group]


def smaller(plan: Plan) -> Iterator[Plan]:
    """The plans that have one thing less."""
    if plan.network != PERFECT:
        yield replace(plan, network=PERFECT)
    if plan.encoding != "msgpack":
        yield replace(plan, encoding="msgpack")
    for number, group in enumerate(plan.groups):
        before, after = plan.groups[:number], plan.groups[number + 1 :]
        if before or after:
            yield replace(plan, groups=before + after)
        for place, call in enumerate(group):
            if call.take and not call.wrong:
                less = (*group[:place], replace(call, take=call.take - 1), *group[place + 1 :])
                yield replace(plan, groups=(*before, less, *after))
            for inner in range(len(call.inner)):
                rest = call.inner[:inner] + call.inner[inner + 1 :]
                less = (*group[:place], replace(call, inner=rest), *group[place + 1 :])
                yield replace(plan, groups=(*before, less, *after))
            if len(group) == 1:
                break
            rest = group[:place] + group[place + 1 :]
            yield replace(plan, groups=(*before, rest, *after))


def is_of(name: str, method: str) -> bool:
    """Whether a name is that method's, or that of a method of an object that it gives."""
    return name == method or name.startswith(f"{method}.")


def alone(plan: Plan, method: str) -> Iterator[Plan]:
    """Each call of that method by itself, by a caller who stays for some items, and then for long.

    What others had to be there for is often no more than that some time passes.
    """
    if len(plan.calls) > 1:
        for call in plan.calls:
            if is_of(method, call.method):
                most = MOST_ITEMS if call.kind is Kind.SERVER_STREAM else 0
                for each in (call, replace(call, take=most, wait=0.0, steps=None, leave="read")):
                    yield Plan(((each,),))


#: From the simplest to the worst, for what is found is told with the first that will do.
NETWORKS: Final = (
    PERFECT,
    PERFECT,
    Network(latency=0.05, jitter=0.1),
    Network(cut=0.05),
    Network(cut=5.0),
    Network(stall=(0.5, 5.0)),
)


def plans(
    table: MethodTable,
    *,
    methods: Sequence[str] = (),
    converter: cattrs.Converter | None = None,
    max_calls: int = 4,
) -> SearchStrategy[Plan]:
    """Plans for a service with these methods; ``methods`` narrows them down."""
    names = sorted(methods or table)
    one = {name: service_calls(table, methods=st.just(name), converter=converter) for name in names}
    calls = st.sampled_from(names).flatmap(one.__getitem__)
    group = st.one_of(
        st.lists(calls, min_size=1, max_size=max_calls),
        # What gets in its own way does so when it is called twice.
        st.sampled_from(names).flatmap(lambda name: st.lists(one[name], min_size=2, max_size=3)),
    ).map(tuple)
    return st.builds(
        Plan,
        st.lists(group, min_size=1, max_size=2).map(tuple),
        encodings(),
        st.sampled_from(NETWORKS),
    )
