"""The checks of one lock server."""

from __future__ import annotations

import re
from typing import Callable, Iterator, List, Optional, Tuple

from celery_redlock.core.checkup.facts import AppFacts, ServerFacts
from celery_redlock.core.checkup.finding import Finding, ok, problem, warning

Check = Callable[[ServerFacts, AppFacts], Iterator[Finding]]

#: The oldest that will do, and the newest that was tried: major and minor version.
_SUPPORTED = {"Redis": ((6, 2), (8, 99)), "Valkey": ((7, 2), (9, 99))}

#: Seconds by which two clocks may differ before somebody is misled by it.
CLOCK_DIFFERENCE = 1.0

#: Seconds of a round trip from which every lock is felt to be slow.
_SLOW = 0.1

#: Seconds that a replica may be behind before that is worth a word of its own.
_LAG = 5


def check_server(server: ServerFacts, app: AppFacts) -> List[Finding]:
    """Every finding about this server; only that one where it does not answer."""
    if server.silence is not None:
        found = [_unreachable(server.silence)]
    else:
        found = [ok("reachable", "it answers")]
        found += [finding for check in CHECKS for finding in check(server, app)]
    return [finding._replace(where=server.address) for finding in found]


def _unreachable(why: str) -> Finding:
    return problem(
        "reachable",
        f"it does not answer: {why}",
        "start it, or correct redlock_url and redlock_options; until then tasks do what their "
        "lock_on_outage says",
    )


def version(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    product, number = _product(server)
    text = f"{product} {number}"
    parts = re.match(r"(\d+)\.(\d+)", number)
    if product not in _SUPPORTED or parts is None:
        yield warning(
            "version",
            f"it says that it is {text}, which is not known to keep the promises of Redis",
            "use Redis 6.2 to 8 or Valkey 7.2 to 9",
        )
        return
    oldest, newest = _SUPPORTED[product]
    found = (int(parts.group(1)), int(parts.group(2)))
    if found < oldest:
        least = ".".join(map(str, oldest))
        yield problem("version", f"{text} is too old", f"use {product} {least} or later")
    elif found > newest:
        yield warning("version", f"{text} is newer than any that was tested", "look for an update")
    else:
        yield ok("version", text)


def role(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    if server.info.get("role") == "slave":
        yield problem(
            "role",
            "it is a replica, and grants nothing",
            "give the address of the primary, or of its Sentinels",
        )


def eviction(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    policy = server.info.get("maxmemory_policy", "noeviction")
    limit = _number(server, "maxmemory")
    if policy == "noeviction":
        yield ok("eviction", "it evicts nothing")
    elif not limit:
        yield warning(
            "eviction",
            f"maxmemory-policy is {policy}, harmless only as long as maxmemory is not set",
            "set maxmemory-policy noeviction",
        )
    else:
        yield problem(
            "eviction",
            f"maxmemory-policy is {policy}: when its memory is full it deletes locks that are held",
            "set maxmemory-policy noeviction, or use a server of its own for locks",
        )


def memory(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    limit, used = _number(server, "maxmemory"), _number(server, "used_memory")
    if limit and used > 0.9 * limit:
        yield warning(
            "memory",
            f"{100 * used / limit:.0f} % of maxmemory is in use: when it is full, nothing is "
            f"granted any more",
            "raise maxmemory, or move other data elsewhere",
        )


def persistence(server: ServerFacts, app: AppFacts) -> Iterator[Finding]:
    if len(app.servers) > 1:
        yield _persistence_of_a_voter(server)
    elif server.info.get("aof_enabled") == "1":
        fsync = server.config.get("appendfsync")
        if fsync == "no":
            yield warning(
                "persistence",
                "appendfsync is no: a crash of its host loses what the system has not written",
                "set appendfsync everysec, or always",
            )
        else:
            yield ok("persistence", "an append-only file keeps locks over a restart")
    elif server.config.get("save"):
        yield warning(
            "persistence",
            "it keeps snapshots only: after a crash it knows an older state, and may grant what "
            "is held",
            "set appendonly yes, or switch snapshots off too (save '') and let "
            "redlock_restart_grace protect holders",
        )
    elif app.restart_grace < app.longest_lease:
        yield warning(
            "persistence",
            f"it keeps nothing over a restart. Holders have {app.restart_grace:g} s to come back, "
            f"the longest lease is {app.longest_lease:g} s: one that is cut off for longer may "
            f"meet a rival",
            f"set appendonly yes, or redlock_restart_grace = {app.longest_lease:g}",
        )
    else:
        yield ok("persistence", "it keeps nothing; after a restart it waits for the longest lease")


def _persistence_of_a_voter(server: ServerFacts) -> Finding:
    """Of several independent servers one that may have forgotten does not vote."""
    if server.info.get("aof_enabled") == "1" and server.config.get("appendfsync") == "always":
        return ok("persistence", "it keeps every write, and votes at once after a restart")
    return ok("persistence", "after a restart it does not vote for as long as the longest lease")


def replication(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    replicas = int(_number(server, "connected_slaves"))
    if server.info.get("role") == "slave" or not replicas:
        return
    yield warning(
        "replication",
        f"its replicas ({replicas}) follow asynchronously: a failover may forget a lock that was "
        f"granted just before",
        "use self.lock.fence where two bodies must not harm, or Redlock over three servers",
    )
    behind = [text for text in _replicas(server) if _is_behind(text)]
    if behind:
        yield warning(
            "replica-lag",
            f"{len(behind)} of them are not connected or more than {_LAG} s behind",
            "look at the replicas' logs and at the network between them",
        )


def clock(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    off = abs(server.clock_ahead) - server.clock_error
    if off > CLOCK_DIFFERENCE:
        ahead = "ahead of" if server.clock_ahead > 0 else "behind"
        yield warning(
            "clock",
            f"its clock is {abs(server.clock_ahead):.1f} s {ahead} this host's. Leases go by the "
            f"server's alone; ages in listings are wrong, and lock_wait_timeout where hosts differ",
            "have all hosts follow one time source (NTP)",
        )
    else:
        yield ok("clock", "its clock agrees with this host's")


def latency(server: ServerFacts, app: AppFacts) -> Iterator[Finding]:
    if not server.round_trips:
        return
    median = server.round_trips[len(server.round_trips) // 2]
    worst, lease = server.round_trips[-1], app.shortest_lease
    told = f"a request takes {1000 * median:.1f} ms, {1000 * worst:.1f} ms at the worst"
    nearer = "use a server nearer to the workers, or longer leases (redlock_ttl)"
    if worst >= lease / 3:
        yield problem("latency", f"{told}; a lease of {lease:g} s cannot be renewed", nearer)
    elif worst >= lease / 12 or median >= _SLOW:
        yield warning("latency", f"{told}, for a shortest lease of {lease:g} s", nearer)
    else:
        yield ok("latency", told)


def timeout(server: ServerFacts, app: AppFacts) -> Iterator[Finding]:
    third = app.shortest_lease / 3
    if server.timeout is None:
        yield problem(
            "timeout",
            "requests have no timeout: a server that hangs stops every renewal of a process",
            "give socket_timeout in redlock_options",
        )
    elif server.timeout > third:
        yield warning(
            "timeout",
            f"a request is waited for {server.timeout:g} s, longer than a third of the shortest "
            f"lease ({third:.1f} s): one that hangs costs a renewal",
            f"set socket_timeout in redlock_options to less than {third:.1f}, or a longer lease",
        )


def permissions(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    lacks = server.permissions
    rules = _rules(server)
    if rules:
        yield problem(
            "permissions",
            f"its user may not do what locks need: {' '.join(rules)}",
            f"ACL SETUSER <user> {' '.join(rules)}",
        )
    elif server.scripts_failed is not None:
        yield problem(
            "scripts",
            f"a lock that was tried did not work: {server.scripts_failed}",
            "the server refuses or changes what the locks' scripts do: use one that does not",
        )
    else:
        yield ok("permissions", "a lock was acquired, renewed, awaited and released")
    if lacks.looking:
        rule = " ".join(f"+{name.lower()}" for name in lacks.looking)
        yield warning(
            "looking",
            "its user may not look at all locks: `redlock ls` fails, and a worker that starts "
            "frees nothing that the dead of its host left",
            f"ACL SETUSER <user> {rule}",
        )


def authentication(server: ServerFacts, _app: AppFacts) -> Iterator[Finding]:
    if not server.is_authenticated and not server.is_local:
        yield warning(
            "authentication",
            "it asks for no password: whoever can reach it can take and break every lock",
            "give it a user and a password of its own, and let nobody else reach it",
        )


CHECKS: Tuple[Check, ...] = (
    version,
    role,
    eviction,
    memory,
    persistence,
    replication,
    clock,
    latency,
    timeout,
    permissions,
    authentication,
)


def _product(server: ServerFacts) -> Tuple[str, str]:
    info = server.info
    if "valkey_version" in info:
        return "Valkey", info["valkey_version"]
    for name in ("dragonfly", "kvrocks", "garnet"):
        if f"{name}_version" in info:
            return name.capitalize(), info[f"{name}_version"]
    return "Redis", info.get("redis_version", "of an unknown version")


def _number(server: ServerFacts, name: str) -> float:
    try:
        return float(server.info.get(name, 0))
    except ValueError:
        return 0.0


def _replicas(server: ServerFacts) -> List[str]:
    return [text for name, text in server.info.items() if re.fullmatch(r"slave\d+", name)]


def _is_behind(replica: str) -> bool:
    fields = dict(part.split("=", 1) for part in replica.split(",") if "=" in part)
    lag: Optional[str] = fields.get("lag")
    late = lag is not None and lag.isdigit() and int(lag) > _LAG
    return fields.get("state") != "online" or late


def _rules(server: ServerFacts) -> List[str]:
    """What of an ACL rule the server's user lacks."""
    lacks = server.permissions
    rules = [f"+{name.lower()}" for name in lacks.commands]
    if lacks.keys:
        rules.append(f"~{server.prefix}*")
    if lacks.channels:
        rules.append(f"&{server.prefix}*")
    return rules
