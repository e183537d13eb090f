"""The faults of a plan, done to an arena; what was done, to whom and when is kept for the judge."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple

from examples.demo.bodylog import now_ns
from tests.harness.process import is_living
from tests.harness.servers import LockServer
from tests.stress.faults.judge import Harm
from tests.stress.faults.lost import Cut
from tests.stress.faults.plan import LEASE, Fault
from tests.stress.faults.pusher import Pusher

if TYPE_CHECKING:
    from tests.stress.faults.arena import Arena


class Deeds:
    """``deaths`` says when processes were killed, ``harms`` what kept holders from renewing.

    ``cuts`` says when connections to the broker were, a killed worker's among them.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._ends: List[Tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped: Dict[int, int] = {}
        self.server_is_away = False
        self.deaths: Dict[int, int] = {}
        self.harms: List[Harm] = []
        self.cuts: List[Cut] = []
        self.done: List[str] = []

    def begin(self, fault: Fault) -> None:
        told = self._deeds()[fault.kind](fault)
        self.done.append(f"{fault.at:6.2f} {fault.kind}: {told or 'nothing there'}")

    @property
    def are_under_way(self) -> bool:
        return bool(self._ends)

    def end_what_is_over(self) -> None:
        while self._ends and self._ends[0][0] <= time.monotonic():
            heapq.heappop(self._ends)[2]()

    def resume_all(self) -> None:
        """Let no process outlive the run because it cannot hear its end."""
        for pid in list(self._stopped):
            self._resume(pid)

    @property
    def _server(self) -> LockServer:
        return self._arena.server

    def _after(self, seconds: float, end: Callable[[], None]) -> None:
        heapq.heappush(self._ends, (time.monotonic() + seconds, next(self._numbers), end))

    def _deeds(self) -> Dict[str, Callable[[Fault], Optional[str]]]:
        """What each kind of fault does; it tells to whom, or None if there was nobody."""
        return {
            "kill a child": self._kill_child,
            "kill a worker": self._kill_worker,
            "kill a running body": self._kill_running,
            "stop a running body": self._stop_running,
            "push in": self._push_in,
            "stop a body's process below the lease": self._stop_body,
            "stop a body's process beyond the lease": self._stop_body,
            "stop a parent": self._stop_parent,
            "stop a worker": self._stop_worker,
            "stop the server below the lease": self._stop_server,
            "stop the server beyond the lease": self._stop_server,
            "end the server, start it empty": self._end_server,
            "kill the server, start it empty": self._kill_server,
            "cut script calls": self._cut,
            "cut lock connections": self._cut_lock_connections,
            "cut subscribers": self._cut_subscribers,
            "cut broker connections": self._cut_broker_connections,
        }

    # --- processes

    def _kill_child(self, fault: Fault) -> Optional[str]:
        pid = self._pick(
            fault, [pid for worker in self._arena.living_workers for pid in worker.pids()]
        )
        if pid is None:
            return None
        self._die([pid], lambda: os.kill(pid, signal.SIGKILL))
        return str(pid)

    def _kill_running(self, fault: Fault) -> Optional[str]:
        pid = self._pick(fault, self._running_pids())
        if pid is None:
            return None
        self._die([pid], lambda: os.kill(pid, signal.SIGKILL))
        return str(pid)

    def _kill_worker(self, fault: Fault) -> Optional[str]:
        worker = self._pick(fault, self._arena.living_workers)
        if worker is None:
            return None
        # Under prefork the kernel ends the children with their parent.
        pids = [worker.pid, *worker.pids()]
        self._die(pids, lambda: worker.send(signal.SIGKILL))
        worker.wait()
        self.cuts.append(Cut(now_ns(), tuple(pids)))
        self._arena.workers.remove(worker)
        self._arena.launch_worker()
        return str(worker.pid)

    def _die(self, pids: List[int], kill: Callable[[], None]) -> None:
        now = now_ns()
        with suppress(ProcessLookupError):
            kill()
        for pid in pids:
            self.deaths.setdefault(pid, now)
            self._note_stop(pid)

    def _stop_body(self, fault: Fault) -> Optional[str]:
        return self._stop(self._pick(fault, self._body_pids()), fault.seconds)

    def _stop_running(self, fault: Fault) -> Optional[str]:
        return self._stop(self._pick(fault, self._running_pids()), fault.seconds)

    def _stop_parent(self, fault: Fault) -> Optional[str]:
        parents = [worker.pid for worker in self._arena.living_workers]
        return self._stop(self._pick(fault, parents), fault.seconds)

    def _stop_worker(self, fault: Fault) -> Optional[str]:
        worker = self._pick(fault, self._arena.living_workers)
        pids = [worker.pid, *worker.pids()] if worker is not None else []
        return ", ".join(filter(None, [self._stop(pid, fault.seconds) for pid in pids])) or None

    def _stop(self, pid: Optional[int], seconds: float) -> Optional[str]:
        if pid is None or pid in self._stopped:
            return None
        self._stopped[pid] = now_ns()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._after(seconds, lambda: self._resume(pid))
        return f"{pid} for {seconds} s"

    def _resume(self, pid: int) -> None:
        if pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self._note_stop(pid)

    def _note_stop(self, pid: int) -> None:
        """It goes on, or was killed where it stood: until now it could renew nothing."""
        since = self._stopped.pop(pid, None)
        if since is not None:
            self.harms.append(Harm("stopped", since, now_ns(), pid))

    def _body_pids(self) -> List[int]:
        """The processes whose bodies run now, else those that could run one."""
        workers = self._arena.living_workers
        idle = [pid for worker in workers for pid in worker.pids() or [worker.pid]]
        return self._running_pids() or sorted(idle)

    def _running_pids(self) -> List[int]:
        bodies = self._arena.shop.bodies.bodies()[-50:]
        running: Set[int] = {body.pid for body in bodies if body.end is None} - {os.getpid()}
        return sorted(pid for pid in running if pid not in self.deaths and is_living(pid))

    # --- rivals

    def _push_in(self, fault: Fault) -> str:
        pusher = Pusher(self._arena)
        pusher.start()
        self._after(fault.seconds, pusher.stop)
        return f"for {fault.seconds} s"

    def _pick(self, fault: Fault, among: List[Any]) -> Any:
        return among[fault.pick % len(among)] if among else None

    # --- the lock server

    def _stop_server(self, fault: Fault) -> Optional[str]:
        return self._without_server(fault, self._server.pause, self._server.resume)

    def _end_server(self, fault: Fault) -> Optional[str]:
        return self._without_server(fault, self._server.stop, self._server.restart)

    def _kill_server(self, fault: Fault) -> Optional[str]:
        return self._without_server(fault, self._server.kill, self._server.restart)

    def _without_server(
        self, fault: Fault, begin: Callable[[], None], end: Callable[[], None]
    ) -> Optional[str]:
        if self.server_is_away:
            return None
        self.server_is_away = True
        since = now_ns()
        begin()

        def give_back() -> None:
            end()
            self.server_is_away = False
            self._harm_all(fault.kind, since)

        self._after(fault.seconds, give_back)
        return f"for {fault.seconds} s"

    def _harm_all(self, what: str, since: int) -> None:
        self.harms.append(Harm(what, since, now_ns()))

    # --- connections

    def _cut(self, fault: Fault) -> str:
        since = now_ns()
        self._arena.proxy.cut(fault.script, fault.point, fault.times, late_by=fault.seconds)
        if fault.script in ("renew", "reestablish"):
            # Armed until the calls come: several processes renew within a third of a lease.
            slow = fault.seconds if fault.point == "slow" else 0.0
            self._after(LEASE + slow, lambda: self._harm_all(fault.kind, since))
        return f"{fault.script} {fault.point} {fault.times}x"

    def _cut_lock_connections(self, fault: Fault) -> str:
        since = now_ns()
        self._arena.proxy.drop()
        self._harm_all(fault.kind, since)
        return "all"

    def _cut_subscribers(self, fault: Fault) -> Optional[str]:
        return None if self.server_is_away else str(self._server.cut_pubsub())

    def _cut_broker_connections(self, fault: Fault) -> str:
        self._arena.broker_proxy.drop()
        # Afterwards: what came until now came over a connection that is cut.
        self.cuts.append(Cut(now_ns()))
        return "all"
