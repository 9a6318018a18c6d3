"""What a person sees while the tests run: a line for every file that is done, and every failure at once."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where somebody looks on: not in the workers among which the files are divided."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal and session.config.get_verbosity() == 0 and not hasattr(session.config, "workerinput"):
        terminal.showfspath = False
        session.config.pluginmanager.register(ProgressLines(terminal))


class ProgressLines:
    """Takes the place of the dots."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal
        self._left: Counter[str] = Counter()
        self._n_tests = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._outcomes: dict[str, Counter[str]] = {}
        self._started = time.monotonic()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Where one process runs all."""
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Where several do: each of them has found the same."""
        self._expect(ids)

    def _expect(self, tests: Sequence[str]) -> None:
        if tests and not self._n_tests:
            self._left = Counter(map(_file_of, tests))
            self._n_tests = len(tests)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No letter for what is as it should be."""
        if hasattr(report, "wasxfail") or report.failed or (report.passed and report.when != "call"):
            return None
        return report.outcome, "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test; after the last of its file, say so."""
        file = _file_of(report.nodeid)
        outcomes = self._outcomes.setdefault(file, Counter())
        self._seconds[file] += report.duration
        if report.when == "call" or not report.passed:
            outcomes[report.outcome] += 1
        if report.failed:
            self._terminal.write_line(f"FAILED {report.nodeid}", red=True)
        if report.when != "teardown":
            return
        self._left[file] -= 1
        if not self._left[file]:
            said = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
            share = 1 - self._left.total() / max(1, self._n_tests)
            passed = time.monotonic() - self._started
            self._terminal.write_line(
                f"{passed:4.0f} s {share:4.0%}  {file}: {said} ({self._seconds[file]:.0f} s)"
            )


def _file_of(test: str) -> str:
    return test.partition("::")[0]
