"""The checks of several independent lock servers together: Redlock."""

from __future__ import annotations

from collections import defaultdict
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from celery_redlock.core.checkup.facts import ServerFacts
from celery_redlock.core.checkup.finding import Finding, ok, problem, warning
from celery_redlock.core.checkup.server import CLOCK_DIFFERENCE

Check = Callable[[Sequence[ServerFacts]], Iterator[Finding]]


def check_servers(servers: Sequence[ServerFacts]) -> List[Finding]:
    """Every finding about what these servers are to one another; none about a single one."""
    if len(servers) < 2:
        return []
    return [finding for check in CHECKS for finding in check(servers)]


def majority(servers: Sequence[ServerFacts]) -> Iterator[Finding]:
    count = len(servers)
    advice = "name three or five servers that fail independently"
    if count < 3:
        yield problem("majority", f"of {count} servers none may fail", advice)
    elif count % 2 == 0:
        yield warning(
            "majority", f"{count} servers bear no more failures than {count - 1} would", advice
        )
    silent = sum(server.silence is not None for server in servers)
    if silent and count - silent <= count // 2:
        yield problem(
            "majority", f"{silent} of {count} do not answer: nothing is granted", "start them"
        )
    elif count >= 3 and count % 2:
        yield ok("majority", f"{count} servers: {(count - 1) // 2} of them may fail")


def same_server(servers: Sequence[ServerFacts]) -> Iterator[Finding]:
    for addresses in _alike(servers, "run_id"):
        yield problem(
            "same-server",
            f"{' and '.join(addresses)} are one server: its failure counts more than once",
            "name each server once",
        )


def same_host(servers: Sequence[ServerFacts]) -> Iterator[Finding]:
    by_host: Dict[str, List[str]] = defaultdict(list)
    for server in servers:
        by_host["this host" if server.is_local else server.host].append(server.address)
    for host, addresses in by_host.items():
        if len(addresses) > 1:
            yield warning(
                "same-host",
                f"{' and '.join(addresses)} are on one host ({host}), and fail with it",
                "put each server on a host of its own",
            )


def clocks(servers: Sequence[ServerFacts]) -> Iterator[Finding]:
    answering = [server for server in servers if server.silence is None]
    if len(answering) < 2:
        return
    first = min(answering, key=lambda server: server.clock_ahead)
    last = max(answering, key=lambda server: server.clock_ahead)
    between = last.clock_ahead - first.clock_ahead
    if between - first.clock_error - last.clock_error > CLOCK_DIFFERENCE:
        yield warning(
            "clocks",
            f"the clocks of {first.address} and {last.address} are {between:.1f} s apart; a server "
            f"that restarts does not vote for twice that time more",
            "have all servers follow one time source (NTP)",
        )
    else:
        yield ok("clocks", "the servers' clocks agree")


CHECKS: Tuple[Check, ...] = (majority, same_server, same_host, clocks)


def _alike(servers: Sequence[ServerFacts], field: str) -> List[List[str]]:
    """The addresses of those for which INFO says the same."""
    found: Dict[str, List[str]] = defaultdict(list)
    for server in servers:
        if server.info.get(field):
            found[server.info[field]].append(server.address)
    return [addresses for addresses in found.values() if len(addresses) > 1]
