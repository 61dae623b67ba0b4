"""`python -m benchmarks`: answers all or some questions, as Markdown or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import to_builtins

from . import (
    chain,
    compression,
    durable,
    export,
    finishing,
    growth,
    hooks,
    imports,
    limits,
    lookups,
    memory,
    ordered,
    pauses,
    picture,
    quick,
    services,
    shared,
    sinks,
    sizes,
    windows,
)
from .measure import note
from .report import Report, machine, markdown, ratio_table

_QUESTIONS: dict[str, Callable[[], Report]] = {
    "lookups": lookups.measure,
    "ordered": ordered.measure,
    "chain": chain.measure,
    "export": export.measure,
    "windows": windows.measure,
    "limits": limits.measure,
    "memory": memory.measure,
    "durable": durable.measure,
    "finishing": finishing.measure,
    "sinks": sinks.measure,
    "pauses": pauses.measure,
    "imports": imports.measure,
    "compression": compression.measure,
    "sizes": sizes.measure,
    "growth": growth.measure,
    "shared": shared.measure,
    "services": services.measure,
    "hooks": hooks.measure,
}


def main() -> int:
    """Run the command line. Return the exit status, which is 1 for a wrong count."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compares altaprofiles with its peers and judges ratios of fifteen kinds. It "
        "takes some 60 minutes on an otherwise idle machine. Peers that are not installed are left "
        "out: pip install -e '.[bench]' installs all but curl, wrk and nginx.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, not Markdown")
    parser.add_argument(
        "--quick", action="store_true", help="check only counts, on small inputs; judge no times"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=_QUESTIONS,
        metavar="NAME",
        help=f"answer only this question; repeatable; one of {', '.join(_QUESTIONS)}",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PATH",
        help="also draw a plot as SVG: of one chain, or with --only growth of what was measured",
    )
    chosen = parser.parse_args()
    if chosen.quick and chosen.plot:
        parser.error("--plot: does not go with --quick, which measures no times")
    if chosen.plot and not chosen.plot.parent.is_dir():
        parser.error(f"--plot: there is no folder {chosen.plot.parent}")
    names = [name for name in _QUESTIONS if chosen.only is None or name in chosen.only]
    return _check(names, chosen.json) if chosen.quick else _measure(names, chosen.json, chosen.plot)


def _check(names: list[str], as_json: bool) -> int:
    checks = []
    for name in names:
        note(name)
        for check in quick.CHECKS[name]():
            checks.append(check)
            if not as_json:
                print(check, flush=True)
    wrong = sum(not check.passed for check in checks)
    if as_json:
        counted = [{**to_builtins(check), "passed": check.passed} for check in checks]
        print(msgspec.json.encode({"passed": not wrong, "checks": counted}).decode())
    else:
        print(f"{len(checks) - wrong} of {len(checks)} counts are right")
    return 1 if wrong else 0


def _measure(names: list[str], as_json: bool, plot: Path | None) -> int:
    facts = machine()
    if not as_json:
        print(markdown(facts), flush=True)
    reports: dict[str, Report] = {}
    for name in names:
        note(name)
        reports[name] = report = _QUESTIONS[name]()
        if not as_json:
            print("\n".join(map(markdown, report.tables)), flush=True)
    ratios = [ratio for report in reports.values() for ratio in report.ratios]
    if as_json:
        judged = [{**to_builtins(ratio), "verdict": ratio.verdict} for ratio in ratios]
        on = {str(item): value for item, value in facts.rows}
        document = {"machine": on, "questions": reports, "ratios": judged}
        print(msgspec.json.encode(document).decode())
    elif ratios:
        print(markdown(ratio_table(ratios)), flush=True)
    if plot is not None:
        _draw(plot, reports["growth"] if names == ["growth"] else None)
    return 0


def _draw(path: Path, growth: Report | None) -> None:
    if find_spec("matplotlib") is None:
        note("Left out: the plot (matplotlib is not installed).")
        return
    if growth is None:
        picture.draw(path)
    else:
        picture.draw_growth(path, growth)
    note(f"plot: {path}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        note("stopped")
        sys.exit(130)
