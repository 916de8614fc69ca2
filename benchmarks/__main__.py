"""Run every benchmark in turn: `make bench`, or `python -m benchmarks step store` for some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
#: Not benchmarks themselves: this file, and the peer that step.py measures against.
HELPERS = {"__init__", "__main__", "plaid_peer", "plain_gpt"}


def main() -> int:
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted:
        print(f"\n## {name}\n", flush=True)
        if subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
