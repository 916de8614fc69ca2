"""`python -m ablab.worker ORDER`: do one order; the exit status says how it ended."""

from __future__ import annotations

import os
import sys

# Read by OpenMP when torch is loaded: threads that wait must not spin, or oversubscribed teams starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> int:
    """Run the order named by the only argument."""
    if len(sys.argv) != 2:
        print("usage: python -m ablab.worker ORDER", file=sys.stderr)
        return 2
    from ablab.worker.source import enter_frozen_source

    enter_frozen_source(sys.argv[1])
    from ablab.worker.main import execute

    return execute(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
