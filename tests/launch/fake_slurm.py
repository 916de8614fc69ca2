"""One program that is sbatch, srun, sacct, squeue and scancel, depending on the name it is called by.

Jobs run at once on this machine; what the cluster knows of them lies in $FAKE_SLURM: <id>.pid, <id>.state (a final
state forced by a test, or PENDING to hold a job back).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    number = len(list(FOLDER.glob("*.pid"))) + 1
    text = Path(script).read_text()
    output = re.search(r"--output=(\S+)", text)
    log = Path(output.group(1).replace("%j", str(number)).replace("%t", "0")) if output else Path(os.devnull)
    log.parent.mkdir(parents=True, exist_ok=True)
    state = FOLDER / f"{number}.state"
    pid = 0
    if not (FOLDER / "hold").exists():
        environment = os.environ | {
            "SLURM_JOB_ID": str(number),
            "SLURM_NTASKS": "1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_JOB_NODELIST": "node1",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "FROM_SLURM": "yes",
        }
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["bash", script], stdout=out, stderr=out, env=environment, start_new_session=True
            )
        pid = process.pid
    else:
        state.write_text("PENDING")
    (FOLDER / f"{number}.pid").write_text(str(pid))
    print(f"Submitted batch job {number}")


def srun(*arguments: str) -> None:
    command = list(arguments)
    while command and command[0].startswith("-"):
        takes_value = "=" not in command[0] and command[0] in {"--output", "--error", "--unbuffered"}
        command = command[2:] if takes_value and command[0] != "--unbuffered" else command[1:]
    os.execvp(command[0], command)


def sacct(*arguments: str) -> None:
    for number in arguments[-1].split(","):
        print(f"{number}|{state_of(number)}\n{number}.batch|{state_of(number)}")


def state_of(number: str) -> str:
    forced = FOLDER / f"{number}.state"
    if forced.exists():
        return forced.read_text()
    pid = int((FOLDER / f"{number}.pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    alive = stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return "RUNNING" if alive else "COMPLETED"


def scancel(*arguments: str) -> None:
    number = arguments[-1]
    wanted = next((a.partition("=")[2] for a in arguments if a.startswith("--signal=")), "")
    pid = int((FOLDER / f"{number}.pid").read_text())
    if not wanted:
        (FOLDER / f"{number}.state").write_text("CANCELLED by 0")
    if pid:
        tree = [pid]
        for parent in tree:
            listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
            tree += [int(line) for line in listed.stdout.split()]
        # As SLURM does: a signal goes to the task (the child of the batch script), a kill to everything.
        for one in tree[1:2] if wanted else tree:
            try:
                os.kill(one, getattr(signal, wanted) if wanted else signal.SIGKILL)
            except ProcessLookupError:
                continue


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}[Path(sys.argv[0]).name](*sys.argv[1:])
