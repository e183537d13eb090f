"""The server's user that the documentation tells its readers to make."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"

NAME = "locks"
PASSWORD = "p:w@rd/#"
LOGIN = {"username": NAME, "password": PASSWORD}


def documented_rules(*more: str) -> List[str]:
    """The rules of the documented user, with the password above; ``more`` the page has as well."""
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(rf"^ACL SETUSER {NAME} (.+)$", text, re.MULTILINE)
    for rule in more:
        shown = rule.replace("|", r"\|")
        assert re.search(rf"`[^`]*{re.escape(shown)}[^`]*`", text), f"{PAGE.name} lacks {rule}"
    return [*line.replace("PASSWORD", PASSWORD).split(), *more]


def user_option(*more: str) -> List[str]:
    """The documented user on a server's command line, so that it outlives restarts."""
    return ["--user", NAME, *documented_rules(*more)]
