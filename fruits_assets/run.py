"""`fruits run`: the whole graph once, told in a line for each asset, and a failure in one paragraph.

Whatever else is said, by Dagster, Spark and the libraries below them, goes to a log in DAGSTER_HOME.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from fruits_assets.terminal import LiveLines, printable

if TYPE_CHECKING:
    from dagster import EventLogEntry
    from dagster_shared.error import SerializableErrorInfo

_HOME = "DAGSTER_HOME"
_LOGS_KEPT = 20
_CANCELLED: Final = 130  # as a shell has it of a command that Ctrl-C has ended
_EPILOG = (
    f"Exit status: 0; 1 if the run failed, or could not begin; {_CANCELLED} if it was cancelled, by Ctrl-C "
    f"or SIGTERM. {_HOME} is .dagster_home in the current folder unless it is set."
)


class RunError(RuntimeError):
    """The run has failed, or cannot begin; the message is the paragraph that stands last."""


class RunCancelledError(RuntimeError):
    """By Ctrl-C or SIGTERM."""


def main(arguments: Sequence[str]) -> int:
    """Run the graph; returns the exit status. What this process says afterwards goes to the log as well."""
    parser = argparse.ArgumentParser("fruits run", description=__doc__, epilog=_EPILOG)
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration of the run, in YAML")
    config = parser.parse_args(arguments).config
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_id = str(uuid.uuid4())
    home = Path(os.environ.get(_HOME) or ".dagster_home").expanduser().absolute()
    try:
        log = _open_log(home / "logs", run_id)
    except OSError as error:
        remedy = f"Set {_HOME} to a folder that can, or free space there."
        print(f"{_HOME} '{home}' cannot be written to: {error}. {remedy}", file=sys.stderr)
        return 1
    os.environ |= {_HOME: str(home)}
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    out, told = _all_else_goes_to(log)
    watch = _Watch(told)
    try:
        with watch.lines as lines:
            lines.say(f"Run {run_id}, log: {log}")
            made = _run(run_id, config, watch)
        print(f"\n{made}", file=out, flush=True)
    except (KeyboardInterrupt, RunCancelledError):
        last = "Cancelled. What was published stays, and the next run goes on from there."
        status = _CANCELLED
    except Exception as error:
        from fruits_assets.resources.failures import in_words

        with suppress(OSError):  # its disk may be what is full
            traceback.print_exc()
        last, status = in_words(error), 1
    else:
        return 0
    last += "" if last.endswith((".", "!", "?")) else "."
    paragraph = "\n".join(map(printable, f"{last} The trace is in {log}".splitlines()))
    print(f"\n{paragraph}", file=told, flush=True)
    return status


def _open_log(folder: Path, run_id: str) -> Path:
    """A new one; of the others, the newest stay."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{run_id[:8]}.log"
    log.touch()
    for old in sorted(folder.glob("*.log"))[:-_LOGS_KEPT]:
        old.unlink(missing_ok=True)
    return log


def _all_else_goes_to(log: Path) -> tuple[TextIO, TextIO]:
    """Standard output and error as they were.

    What this process, its JVM and its workers write to either is logged, to the very end.
    """
    sys.stdout.flush()
    out, err = (
        os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors="backslashreplace")
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    return out, err


def _run(run_id: str, config: Path | None, watch: _Watch) -> str:
    """Run the graph as `dagster job execute` does; returns the summary.

    Raises:
        RunError, RunCancelledError: it has failed, or was cancelled; and whatever keeps it from beginning.
    """
    run_config = _mapping_of(config) if config else {}
    gc.disable()
    _start_spark()
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._core.execution.api import execute_run

    from fruits_assets import definitions, summary
    from fruits_assets.jobs import fruits_pipeline
    from fruits_assets.settings import from_environment

    # What has been imported stays: to look for garbage in there, over and over, takes a tenth of a short run.
    gc.freeze()
    gc.enable()
    repository = ReconstructableRepository.for_module(definitions.__name__, "defs")
    job = repository.get_reconstructable_job(fruits_pipeline.name)
    with dg.DagsterInstance.get() as instance:
        try:
            run = instance.create_run_for_job(
                job_def=job.get_definition(),
                run_id=run_id,
                run_config=run_config,
                job_code_origin=job.get_python_origin(),
            )
        except dg.DagsterInvalidConfigError as error:
            raise RunError(_fault(config, " ".join(map(_shortened, error.error_messages)))) from error

        def cancel(entry: EventLogEntry) -> None:
            # Dagster takes an interrupt that nobody has announced for a failure. Before the first asset, that
            # is recorded already.
            if _is_interrupted(entry) and not watch.is_cancelled:
                watch.is_cancelled = True
                if entry.step_key:
                    instance.report_run_canceling(run)
                else:
                    instance.report_run_canceled(run)

        instance.add_event_listener(run_id, cancel)
        instance.add_event_listener(run_id, watch.hear)
        try:
            done = execute_run(job, run, instance)
        except KeyboardInterrupt:
            # Dagster was not yet where it records one, or the run would be waiting to begin for ever.
            recorded = instance.get_run_by_id(run_id)
            if recorded and not recorded.is_finished:
                instance.report_run_canceled(run)
            raise
        if watch.is_cancelled:
            raise RunCancelledError
        if not done.success:
            raise RunError("\n".join(watch.failures))
        made = summary.summary(definitions.lake(from_environment(definitions.Settings)))
        return "\n".join([made, "", *summary.failed_checks(instance)])


def _start_spark() -> None:
    """While this process imports Dagster; settings that are wrong are told with all others."""
    from fruits_assets.resources.spark_session import start_early
    from fruits_assets.settings import SettingError, SparkSettings, from_environment

    with suppress(SettingError):
        settings = from_environment(SparkSettings)
        if settings.spark == "local":
            start_early(settings.spark_master)


def _mapping_of(config: Path) -> Mapping[str, Any]:
    import yaml
    from dagster_shared.yaml_utils import safe_load_yaml

    try:
        parsed = safe_load_yaml(config.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RunError(_fault(config, f"{error.strerror}. Name a YAML file that can be read.")) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(_fault(config, f"no YAML: {' '.join(str(error).split())}.")) from error
    if not isinstance(parsed, dict):
        raise RunError(_fault(config, f"not names with values, but {type(parsed).__name__}."))
    return parsed


def _shortened(message: str) -> str:
    """What Dagster says of an entry, without traces, and without what would stand inside what it expects."""
    of_ours = re.match(r"Post processing at path (\S+) .*?PostProcessingError: ([^\n]*)", message, re.DOTALL)
    if of_ours:
        return f"{of_ours[1]}: {of_ours[2]}."
    message = re.sub(r"\((\w+) \| \{ env: String \}\)", r"\1", message)
    while message != (shorter := re.sub(r": \{[^{}]*\}", "", message)):
        message = shorter
    return message


def _fault(config: Path | None, what: str) -> str:
    return f"Configuration '{config}': {what} docs/settings.md has one with everything in it."


def _is_interrupted(entry: EventLogEntry) -> bool:
    event = entry.dagster_event
    error = getattr(event.event_specific_data, "error", None) if event and event.is_failure else None
    return error is not None and error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


def _words_of(error: SerializableErrorInfo | None) -> str:
    """Without its class if it is one of ours."""
    return re.sub(r"^fruits_assets\.[\w.]+: ", "", error.message.strip()) if error else ""


class _Watch:
    """Makes lines of what Dagster records of a run."""

    def __init__(self, stream: TextIO) -> None:
        self.lines = LiveLines(stream, self._now)
        self.failures: list[str] = []
        self.is_cancelled = False
        self._begin("starting")

    def _begin(self, asset: str) -> None:
        self._asset, self._since, self._news, self._outcome = asset, time.monotonic(), "", ""

    def _now(self) -> str:
        return self._line(f"{time.monotonic() - self._since:6.0f}", self._news) if self._asset else ""

    def _line(self, seconds: str, words: str) -> str:
        return printable(f"{self._asset:<20} {seconds} s  {words}".rstrip())

    def hear(self, entry: EventLogEntry) -> None:
        """An event, or a line of the log."""
        event = entry.dagster_event
        if event is None:
            if entry.step_key == self._asset:
                self._hear_message(entry.user_message, int(entry.level))
        elif event.is_step_start:
            self._begin(str(event.step_key))
        elif event.is_step_materialization and not self._outcome:
            facts = {name: value.value for name, value in event.materialization.metadata.items()}
            n_rows = facts["dagster/row_count"]
            self._outcome = f"{n_rows:,} row{'s' * (n_rows != 1)}, version {facts['version']}"
        elif event.is_step_success:
            self._end(self._outcome)
        elif event.is_step_failure:
            self._end("cancelled" if self.is_cancelled else "failed")
            failure = event.step_failure_data
            said = failure.user_failure_data and failure.user_failure_data.description
            self.failures.append(said or _words_of(failure.error))
        elif event.is_run_failure and not self.failures:
            self.failures.append(_words_of(event.job_failure_data.error))

    def _end(self, words: str) -> None:
        self.lines.say(self._line(f"{time.monotonic() - self._since:6.1f}", words))
        self._asset = ""

    def _hear_message(self, message: str, level: int) -> None:
        if level >= logging.WARNING:
            self.lines.say(printable(f"{self._asset}: {message}"))
        self._news = message.removeprefix(f"{self._asset}: ")
        if self._news != message:  # what an asset says of itself is how it ends
            self._outcome = self._news
