"""The map of a cluster: whoever tells it, whatever it says, and by however many threads."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import pytest
from redis.exceptions import MovedError, ResponseError

from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.seeds import Address
from celery_redlock.store.slots import Slots, redirect

ONE, TWO, THREE = (Address("10.0.0.1", port) for port in (1, 2, 3))


def all_slots(address: Address) -> List[Any]:
    return [[0, 16383, [address.host.encode(), address.port]]]


class Node:
    """Tells ``answer`` of the cluster."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.answer: Any = all_slots(address)
        self.on_close: Callable[[], None] = lambda: None

    def read(self, _frames: Any) -> List[Any]:
        return [self.answer]

    def close(self) -> None:
        self.on_close()


class Nodes(Dict[Address, Node]):
    def __missing__(self, address: Address) -> Node:
        return self.setdefault(address, Node(address))

    def slots(self, *seeds: Address) -> Slots:
        connect: Any = self.__getitem__
        return Slots(seeds, connect, "redis+cluster://seeds")


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


def server(slots: Slots) -> Any:
    return slots.server_of("key")


def test_what_left_the_cluster_may_be_noticed_by_several_threads_at_once(nodes: Nodes) -> None:
    slots = nodes.slots(ONE)
    for left in (TWO, THREE):
        slots.server_at(left)
        # Another thread has the same news while this one closes.
        nodes[left].on_close = slots.look
    slots.look()
    assert server(slots) is nodes[ONE]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"OK",
        5,
        [b"a"],
        [[0, 1]],
        [[0, 1, []]],
        [[0, 1, [b"\xff", 1]]],
        [[0, 1, [b"host", b"port"]]],
        [[0, 1, [1, 1]]],
        [[0, 10**12, [b"host", 1]]],
        [[-5, 1, [b"host", 1]]],
        [[b"0", b"1", [b"host", 1]]],
    ],
    ids=repr,
)
def test_what_is_no_map_is_no_answer(nodes: Nodes, answer: Any) -> None:
    nodes[ONE].answer = answer
    with pytest.raises(NoAnswer, match=r"10\.0\.0\.1:1 \(an answer that is none"):
        nodes.slots(ONE).look()


def test_a_node_that_knows_of_no_slots_is_not_believed(nodes: Nodes) -> None:
    nodes[ONE].answer = nodes[TWO].answer = []
    slots = nodes.slots(ONE, TWO, THREE)
    for _ in range(4):
        slots.look()
        assert server(slots) is nodes[THREE]


def test_a_cluster_without_slots_says_so(nodes: Nodes) -> None:
    nodes[ONE].answer = []
    with pytest.raises(NoAnswer, match=r"10\.0\.0\.1:1 \(it knows of no slots"):
        nodes.slots(ONE).look()


def test_a_slot_that_nobody_served_is_looked_for_before_it_is_said(nodes: Nodes) -> None:
    nodes[ONE].answer = [[0, 0, [b"10.0.0.1", 1]]]
    slots = nodes.slots(ONE)
    with pytest.raises(NoAnswer, match="no node serves slot"):
        server(slots)
    nodes[ONE].answer = all_slots(TWO)
    slots._looked_at -= 1.0
    assert server(slots) is nodes[TWO]


@pytest.mark.parametrize(
    "error", [MovedError("12539 :2"), ResponseError("MOVED 12539 :2")], ids=repr
)
def test_a_redirection_without_a_host_leads_to_the_same_host(nodes: Nodes, error: Any) -> None:
    slots = nodes.slots(ONE)
    told_by, elsewhere = server(slots), redirect(error)
    assert elsewhere is not None
    followed: Any = slots.follow(elsewhere, told_by)
    assert followed is nodes[Address("10.0.0.1", 2)]
    assert server(slots) is followed


def test_a_redirection_of_a_slot_that_is_none_leads_nowhere() -> None:
    assert redirect(ResponseError("MOVED 16384 10.0.0.1:2")) is None
