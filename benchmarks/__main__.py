"""`make bench`: the budgets of the design, each measured against its reference in one run.

    .venv/bin/python -m benchmarks [--check] [--json FILE] [--quick] [ROW ...]

Ratios hold on any machine; times are of this one, as busy as it is. The exit status is 0 whether the budgets are
met or not, unless --check is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import rows
from .table import Row, text


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of: {', '.join(rows.ROWS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="fail when a budget is not met")
    parser.add_argument("--quick", action="store_true", help="a quarter of the runs")
    parser.add_argument("--json", type=Path, default=Path(".work/bench.json"), metavar="FILE")
    options = parser.parse_args()
    unknown = set(options.rows) - set(rows.ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    # A shell without job control starts what it does not wait for with SIGINT ignored, and what a row starts inherits
    # it: a forward is ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: list[Row] = []
    for name in options.rows or rows.ROWS:
        print(f"[bench] {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="smssh-bench-") as folder:
            try:
                found += rows.ROWS[name](Path(folder), 0.25 if options.quick else 1.0)
            except rows.NotHere as reason:
                found.append(Row(name, "", None, "", None, "", None, "", note=f"not measured: {reason}"))
    print(text(found))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {platform.python_version()}",
        "load": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [row.to_json() for row in found],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{result['machine']}; load {os.getloadavg()[0]:.1f}. As JSON: {options.json}")
    return 1 if options.check and any(row.met is False for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
