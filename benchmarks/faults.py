"""What goes wrong, one after another: does a run succeed, or say what to do, and the next one recover?

Each fault is made on a copy of a small lake. A run has to succeed with the right results, those of a fresh
lake; or it fails with a message that names the thing and the remedy, and once the cause is gone and the
remedy is applied, and nothing else is repaired by hand, the next run has the right results. See README.md
beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from fault_catalogue import all_faults
from fault_trial import Bench, Fault, SkippedError
from measuring import scratch_folder
from pipeline_process import end_orderly_on_sigterm


def examine(fault: Fault, bench: Bench) -> str:
    """Try a fault and tell what came of it: `passed`, `failed` or `skipped`."""
    bench.restore()
    started = time.monotonic()
    try:
        fault.examine(bench)
    except SkippedError as error:
        print(f"skipped  {fault.name}: {error}", flush=True)
        return "skipped"
    finally:
        bench.unmount()
    verdict = "failed" if bench.problems else "passed"
    print(f"{verdict}   {fault.name} ({time.monotonic() - started:.0f} s)", flush=True)
    for line in [*bench.notes, *(f"PROBLEM: {problem}" for problem in bench.problems)]:
        print(f"         {line}", flush=True)
    return verdict


def main() -> None:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose names have this in them")
    parser.add_argument("--list", action="store_true", help="name the faults and do nothing")
    arguments = parser.parse_args()
    chosen = [fault for fault in all_faults() if arguments.only in fault.name]
    if arguments.list or not chosen:
        print("\n".join(fault.name for fault in chosen or all_faults()))
        sys.exit(not chosen)
    end_orderly_on_sigterm()
    started = time.monotonic()
    with scratch_folder() as scratch:
        bench = Bench(scratch)
        bench.prepare()
        verdicts = {fault.name: examine(fault, bench) for fault in chosen}
    failed, skipped = (
        [name for name, verdict in verdicts.items() if verdict == wanted] for wanted in ("failed", "skipped")
    )
    print(f"\n{len(verdicts)} faults, {len(failed)} failed, {len(skipped)} skipped\n")
    figures = {
        "faults": len(verdicts),
        "failed": failed,
        "skipped": skipped,
        "seconds": time.monotonic() - started,
    }
    print(json.dumps(figures), flush=True)
    if failed:
        sys.exit("Not all is as it should be: see above.")


if __name__ == "__main__":
    main()
