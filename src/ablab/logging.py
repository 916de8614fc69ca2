"""`ablab.log(step, loss=..., ...)`: a program run as a command stage tells its metrics; elsewhere it does nothing.

It needs no other part of Ablab, so that calling it costs a program nothing but a line in a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

#: Variable that names the file to append to; set by the command stage.
VARIABLE = "ABLAB_LOG"


def log(step: int, values: Mapping[str, float] | None = None, /, **named: float) -> None:
    """Tell metrics at a step; of several processes of one program only the first (RANK 0) does.

    Args:
        step: the step, from 0 or 1 on.
        values: value by metric name, for names such as "val/loss".
        **named: the same for names that Python allows; `val_loss` is told as val/loss.
    """
    path = os.environ.get(VARIABLE)
    if not path or os.environ.get("RANK", "0") != "0":
        return
    numbers = {name: float(value) for name, value in {**(values or {}), **named}.items()}
    line = json.dumps({"step": int(step), **numbers}) + "\n"
    # One write of a whole line: processes and threads may tell at once.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
