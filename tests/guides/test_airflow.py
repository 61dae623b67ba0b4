"""The callable of the guide for a task of Airflow, with the only class that it takes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..support.guides import write_programs
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment

GUIDE = "in-a-lake.md"
AIRFLOW = "class AirflowFailException(Exception):\n    pass\n"
"""All that the recipe takes of Airflow, which is not installed here."""

TRY = """
from airflow_nightly import nightly

try:
    nightly(".")
except Exception as error:
    print(type(error).__name__, error)
else:
    print("success")
"""


def test_a_task_of_airflow_is_tried_again_only_if_that_may_help(tmp_path: Path) -> None:
    write_programs(GUIDE, tmp_path)
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "__init__.py").touch()
    (tmp_path / "airflow" / "exceptions.py").write_text(AIRFLOW)

    def attempt(**variables: str) -> str:
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        settings = {"PATH": path, "CRM_TABLE": "crm.duckdb", "CLEVERTAP_TIMEZONE": "UTC"}
        env = environment(tmp_path, emulator.environment, **(settings | variables))
        done = subprocess.run(
            [sys.executable, "-c", TRY],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=6 * PATIENCE,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    with emulated(people=5) as emulator:
        assert attempt(CLEVERTAP_PASSCODE="wrong").startswith("AirflowFailException exit code 3: ")
        assert attempt(CLEVERTAP_TIMEZONE="Mars").startswith("AirflowFailException exit code 2: ")
        taken = tmp_path / "taken.duckdb"
        taken.write_bytes(b"no database")
        assert attempt(CRM_TABLE=str(taken)).startswith("RuntimeError exit code 1: ")
        assert attempt() == "success"
