"""Writes docs/lifecycle.md from the table in celery_redlock/core/lifecycle.py.

python -m docs.lifecycle
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Tuple

from celery_redlock.core.lifecycle import FINAL, LIVING, TRANSITIONS, Move, State

PAGE = Path(__file__).with_suffix(".md")

_INTRODUCTION = """\
# The life of one hold

<!-- Made by `python -m docs.lifecycle` from celery_redlock/core/lifecycle.py: do not edit. -->

A hold is one owner's claim to one resource. It is made when a task asks, and ends when its
release is certain. The code has this table as data and no other rules: a move that is not in it
raises and changes nothing.
"""

_EXPLANATION = """\
- **held**, **at risk** and **unsure** are the states in which the body may run; the watchdog
  renews these and no others. At risk: a renewal failed, nobody else can have the lock yet. Unsure:
  the lease may have passed, so somebody else may have it. Both come back to held when a renewal
  succeeds.
- **handed**: given on to a pool process or to the task's own retry, which adopts it in one step.
- **abandoned**: the release was not acknowledged. It goes on in the background.
- **lost**, **foreign** and **ended** are final. Releasing a lost hold does nothing, so it never
  touches another's lock. After a fork the child's copy of any hold is foreign: only the parent ends
  it.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, diagram(), _EXPLANATION, table()])


def diagram() -> str:
    """The states and moves as a mermaid diagram; the fork is told once, for all living states."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.NEW.value}"]
    for (before, after), moves in _arrows().items():
        lines.append(f"    {before.value} --> {after.value}: {', '.join(moves)}")
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    lines += [
        f"    note right of {State.FOREIGN.value}: after a fork, from any state but the final"
    ]
    return "\n".join([*lines, "```", ""])


def table() -> str:
    """Every transition, one a line."""
    lines = ["| state | body may run | move | next state |", "|---|---|---|---|"]
    for (state, move), after in TRANSITIONS.items():
        runs = "yes" if state in LIVING else ""
        lines.append(f"| {_words(state)} | {runs} | {move.value} | {_words(after)} |")
    return "\n".join([*lines, ""])


def _arrows() -> Dict[Tuple[State, State], List[str]]:
    arrows: Dict[Tuple[State, State], List[str]] = {}
    for (before, move), after in TRANSITIONS.items():
        if move is not Move.FORKED:
            arrows.setdefault((before, after), []).append(move.value)
    return arrows


def _words(state: State) -> str:
    return state.value.replace("_", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
