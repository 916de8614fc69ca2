"""A worker that obeys the protocol and computes next to nothing; also the worker of the executors' conformance suite.

    fake_worker.py ORDER        do one order
    fake_worker.py template     fork a child for each order path on stdin, as `ablab.worker.template` does

Its weights are a hash chain over steps, so that a lost or repeated step shows. `parameters` of the order say how it
behaves: see `Script`.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ablab.contract.failure import EXIT_CLAIMED, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from ablab.contract.order import Numerics, Order
from ablab.contract.result import Result
from ablab.contract.state import State
from ablab.store.claims import Claimed, acquire
from ablab.store.files import append_line, atomic_folder, read_json, write_json
from ablab.store.layout import RunFolder

if os.environ.get("FAKE_UNSYNCED"):
    os.fsync = lambda _: None  # type: ignore[assignment]


@dataclass(kw_only=True)
class Script:
    """What `parameters` may ask for.

    Args:
        steps: steps of the run.
        seconds: of each step.
        every: steps between checkpoints.
        batch: effective batch, for the memory it pretends to need.
        memory: largest micro-batch (or evaluation batch, or loss chunk) that fits.
        fails: kind of failure by attempt ("1": "crash"); "kill" dies by SIGKILL, "exit" leaves no record.
        fails_while: path of a file; while it exists, the attempt fails with `fails_with`.
        rehearsal: how a rehearsal ends: empty passes.
        deaf: ignore SIGTERM.
        gate: after two steps, wait until there is a file `open` beside the store.
        says: printed on standard output.
    """

    steps: int = 3
    seconds: float = 0.0
    every: int = 1
    batch: int = 8
    memory: int | None = None
    fails: dict[str, str] | None = None
    fails_while: str = ""
    fails_with: str = "disk-full"
    rehearsal: str = ""
    deaf: bool = False
    gate: bool = False
    says: str = ""


class Failed(Exception):
    def __init__(self, kind: str, message: str, **detail: object) -> None:
        super().__init__(message)
        self.kind, self.detail = kind, detail


class Stop(Exception):
    pass


def execute(path: str) -> int:
    order = Order.model_validate_json(Path(path).read_bytes())
    run = RunFolder(order.folder)
    script = Script(**{k: v for k, v in order.parameters.items() if k in Script.__dataclass_fields__})
    asked = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if script.deaf else lambda *_: asked.append(1))
    if run.done:
        return EXIT_DONE
    try:
        claim = acquire(run.claim_path)
    except Claimed:
        return EXIT_CLAIMED
    with claim:
        if run.done:
            return EXIT_DONE
        attempt = run.attempt(order.attempt).create()
        # What the outside handed down, for the tests to look at.
        write_json(attempt.environment, {"variables": dict(os.environ), "pid": os.getpid(), "source": __file__})
        numerics = order.numerics or Numerics(threads=order.resources.threads)
        write_json(attempt.path / "numerics.json", {"format": 1, **numerics.model_dump()})
        append_line(run.path.parent.parent / "starts.jsonl", {"run": run.name, "t": time.time(), "mode": order.mode})
        if script.says:
            print(script.says, flush=True)
        began = time.time()
        try:
            value = compute(order, run, script, asked, numerics)
        except Stop:
            end(run, order, "stopped", "asked to", {}, "stopped")
            return EXIT_STOPPED
        except Failed as failure:
            if failure.kind == "exit":
                print("the last words", flush=True)
                return 7
            end(run, order, failure.kind, str(failure), failure.detail, "failed")
            return EXIT_FAILED
        claim.check()
        seconds = time.time() - began
        run.write_result(
            Result(
                key=order.key,
                metrics={"val/loss": value},
                facts=facts(order),
                numerics=numerics,
                time={"other": seconds},
                attempts=len(run.attempts()),
            )
        )
        end(run, order, "done", "", {}, "done")
        append_line(run.path.parent.parent / "ends.jsonl", {"run": run.name, "t": time.time(), "mode": order.mode})
        return EXIT_DONE


def compute(order: Order, run: RunFolder, script: Script, asked: list[int], numerics: Numerics) -> float:
    weights = hashlib.sha256(f"{order.seed} {numerics.threads if order.kind == 'train' else ''}".encode()).hexdigest()
    for given in order.inputs:
        result = RunFolder(given.path).read_result()
        assert result is not None, f"{given.path} is not done"
        weights = hashlib.sha256(f"{weights} {result.metrics['val/loss']!r}".encode()).hexdigest()
    step = 0
    saved = sorted(p for p in run.checkpoints.glob("step-*")) if run.checkpoints.exists() else []
    if saved and order.mode == "run":
        state = read_json(saved[-1] / "state.json")
        step, weights = state["step"], state["weights"]
    misbehave(order, script)
    steps = 2 if order.mode != "run" else script.steps
    gate = run.path.parents[2] / "open"
    while step < steps:
        while script.gate and step >= 2 and not gate.exists() and not asked and not late(order):
            time.sleep(0.01)
        if asked or late(order):
            raise Stop
        time.sleep(script.seconds)
        step += 1
        weights = hashlib.sha256(f"{weights} {step}".encode()).hexdigest()
        if step % script.every == 0:
            with atomic_folder(run.checkpoints / f"step-{step:08d}", replace=True, sync=False) as folder:
                write_json(folder / "state.json", {"step": step, "weights": weights}, sync=False)
        tell(run, order, "running", step=step, steps=steps, progress=step / steps)
        fault = (script.fails or {}).get(f"{order.attempt}@{step}")
        if fault:
            fail(fault)
    return int(weights[:12], 16) / 2**48


def facts(order: Order) -> dict[str, object]:
    """Return what two steps tell, or what a select stage found: the values of the trial with the lowest loss."""
    if order.mode != "run":
        return {"step.seconds": order.parameters["seconds"] or 1.0, "steps.planned": order.parameters["steps"]}
    if order.kind != "select":
        return {}
    losses = {given.reference: RunFolder(given.path).read_result().metrics["val/loss"] for given in order.inputs}
    return {"chosen": json.loads(min(losses, key=lambda reference: losses[reference]))}


def late(order: Order) -> bool:
    return order.deadline is not None and time.time() >= order.deadline


def misbehave(order: Order, script: Script) -> None:
    if order.mode != "run" and script.rehearsal:
        fail(script.rehearsal)
    if script.fails_while and Path(script.fails_while).exists():
        fail(script.fails_with)
    fault = (script.fails or {}).get(str(order.attempt)) if order.mode == "run" else None
    if fault:
        fail(fault)
    if script.memory is not None:
        resources = order.resources
        if order.kind == "evaluate":
            name, size = "evaluation_batch", resources.evaluation_batch or script.batch
        elif order.kind == "contrast":
            name, size = "loss_chunk", resources.loss_chunk or script.batch
        else:
            name, size = "micro_batch", resources.micro_batch or script.batch
        if size > script.memory:
            raise Failed("out-of-memory", f"no room for {name} {size}", **{name: size})


def fail(kind: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Failed(kind, f"made to fail: {kind}")


def end(run: RunFolder, order: Order, kind: str, message: str, detail: dict[str, object], status: str) -> None:
    record = {"format": 1, "kind": kind, "message": message, "detail": detail, "time": time.time()}
    write_json(run.attempt(order.attempt).end, record)
    tell(run, order, status, kind=None if kind == "done" else kind, message=message)


def tell(run: RunFolder, order: Order, status: str, **fields: object) -> None:
    before = run.read_state() or State(status="running", updated=0.0)
    changes = {"status": status, "attempt": order.attempt, "updated": time.time(), "kind": None, **fields}
    run.write_state(before.model_copy(update=changes))


def serve() -> None:
    """Be a template: fork a child for each path, print when it began and when it ended."""
    wake, sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(sender)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    say({"ready": os.getpid()})
    text = b""
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
        while pid := reap():
            say(pid)
        if 0 in readable:
            data = os.read(0, 65536)
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                fork(line.decode())
            if not data:
                return


def fork(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            order = json.loads(Path(path).read_bytes())
            log = Path(order["folder"], "attempts", str(order["attempt"]), "log.txt")
            log.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            for target in (1, 2):
                os.dup2(handle, target)
            os.close(0)
            code = execute(path)
        finally:
            os._exit(code)
    say({"pid": pid, "order": path})


def reap() -> dict[str, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return {"pid": pid, "exit": os.waitstatus_to_exitcode(status)} if pid else None


def say(values: dict[str, object]) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "template":
        serve()
    else:
        sys.exit(execute(sys.argv[1]))
