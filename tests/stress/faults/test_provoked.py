"""What chosen faults provoke does not happen, and does in a run that is sabotaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sabotage
from tests.stress.faults.provoked import NOTICED, PROVOCATIONS
from tests.stress.faults.test_faults import run_and_judge

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_what_is_provoked_does_not_happen(name: str, tmp_path: Path) -> None:
    run_and_judge(PROVOCATIONS[name], tmp_path)


@pytest.mark.parametrize(("name", "provocation"), NOTICED.items())
def test_a_sabotaged_run_shows_what_is_provoked(name: str, provocation: str) -> None:
    test = f"{__file__}::{test_what_is_provoked_does_not_happen.__name__}[{provocation}]"
    trial = sabotage.try_guards(name, [test])
    assert trial.word == "caught", trial.output[-4000:]
    # And not because the run itself broke.
    assert "AssertionError" in trial.output, trial.output[-4000:]
