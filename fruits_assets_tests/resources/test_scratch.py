"""Temporary files go with their process, or with the next one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CODE = "from fruits_assets.resources.scratch import scratch_folder; print(scratch_folder(), flush=True)"


def start(code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def folder_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_the_folder_of_a_process_is_gone_with_it(tmp_path: Path) -> None:
    with start(CODE, tmp_path) as process:
        assert folder_of(process).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_goes_with_the_next_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    waiting = f"{CODE}; import time; time.sleep(600)"
    with start(waiting, tmp_path) as killed, start(waiting, tmp_path) as living:
        try:
            left, kept = folder_of(killed), folder_of(living)
            (left / "spark-0123").mkdir()
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            assert left.exists()
            with start(CODE, tmp_path) as third:
                folder_of(third)
            assert not left.exists()
            assert kept.exists()
        finally:
            killed.kill()
            living.kill()


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    made = tmp_path / f"fruits_assets-{os.getuid()}-0123"
    made.mkdir()
    with start(CODE, tmp_path) as process:
        folder_of(process)
    assert made.exists()
    long_ago = time.time() - 3600
    os.utime(made, (long_ago, long_ago))
    with start(CODE, tmp_path) as process:
        folder_of(process)
    assert not made.exists()


def test_a_folder_that_is_marked_while_it_is_looked_at_stays(tmp_path: Path) -> None:
    made = tmp_path / f"fruits_assets-{os.getuid()}-0123"
    made.mkdir()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fruits_assets.resources import locks, scratch\n"
        "mark = Path(sys.argv[1]) / 'in_use'\n"
        "def is_held_a_moment_ago(asked):\n"
        "    answer = locks.is_held(asked)\n"
        "    held = locks.held(mark)\n"
        "    held.__enter__()\n"
        "    marks.append(held)\n"
        "    return answer\n"
        "marks = []\n"
        "scratch.is_held = is_held_a_moment_ago\n"
        "scratch.scratch_folder()\n"
        "print(Path(sys.argv[1]).exists())\n"
    )
    with start(code, tmp_path, str(made)) as process:
        assert process.communicate()[0] == "True\n"


def test_threads_that_ask_at_once_get_one_folder(tmp_path: Path) -> None:
    code = (
        "import tempfile, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from fruits_assets.resources import scratch\n"
        "make = tempfile.mkdtemp\n"
        "tempfile.mkdtemp = lambda **options: (time.sleep(0.2), make(**options))[1]\n"
        "with ThreadPoolExecutor(4) as threads:\n"
        "    print(len({f.result() for f in [threads.submit(scratch.scratch_folder) for _ in range(4)]}))\n"
    )
    with start(code, tmp_path) as process:
        assert process.communicate()[0] == "1\n"
    assert list(tmp_path.iterdir()) == []
