"""One suite that every executor has to pass, and what is particular to each."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import EXIT_CLAIMED, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, ConfigError
from ablab.contract.order import Order, Resources
from ablab.launch.executors.base import Executor, Exit, Handle, Program
from ablab.launch.executors.local import LocalExecutor
from ablab.launch.processes import Watch
from ablab.store.claims import acquire
from ablab.store.layout import RunFolder

FAKE = Path(__file__).with_name("fake_worker.py")
PROGRAM = Program(worker=(str(FAKE),), template=(str(FAKE), "template"))
COLD = Program(worker=(str(FAKE),), template=None)

Made = Callable[[], Executor]


@pytest.fixture(scope="module")
def slurm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs named sbatch, srun, sacct and scancel."""
    folder = tmp_path_factory.mktemp("slurm")
    fake = FAKE.with_name("fake_slurm.py")
    for name in ("sbatch", "srun", "sacct", "scancel"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{fake.read_text()}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    except (OSError, RuntimeError, ConnectionError) as error:
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()


@pytest.fixture(params=["warm", "cold", "slurm", "ray"])
def executor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    if request.param == "warm":
        made: Executor = LocalExecutor(program=PROGRAM, log=tmp_path / "templates.log")
    elif request.param == "cold":
        made = LocalExecutor(program=COLD)
    elif request.param == "slurm":
        pytest.importorskip("submitit")
        from ablab.launch.executors.slurm import SlurmExecutor

        programs = request.getfixturevalue("slurm_folder")
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "cluster").mkdir()
        monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "cluster"))
        made = SlurmExecutor(folder=tmp_path / "submitit", parameters={"time": 5}, program=PROGRAM, every=0.1)
    else:
        request.getfixturevalue("ray_here")
        from ablab.launch.executors.ray import RayExecutor

        made = RayExecutor(program=PROGRAM)
    yield made
    made.close()


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an order for the fake worker and returns its path."""

    def write(name: str = "train-1", *, attempt: int = 1, **parameters: Any) -> Path:
        folder = RunFolder(tmp_path / "runs" / name).create()
        folder.write_order(
            Order(
                key="1",
                stage="train",
                kind="train",
                task="fake",
                study="fake",
                profile="full",
                experiment="A",
                seed=1,
                parameters=parameters,
                folder=str(folder.path),
                attempt=attempt,
            )
        )
        return folder.order_path

    return write


def start(executor: Executor, path: Path, **env: str) -> Handle:
    return executor.start(path, resources=Resources(), env={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **env})


def ended(executor: Executor, handle: Handle, seconds: float = 30.0) -> Exit:
    deadline = time.monotonic() + seconds
    while (found := executor.poll(handle)) is None:
        assert time.monotonic() < deadline, "the worker did not end"
        time.sleep(0.02)
    return found


def begun(path: Path, seconds: float = 30.0) -> int:
    """Wait until a worker has taken a step; return its process."""
    deadline = time.monotonic() + seconds
    state = RunFolder(path.parent)
    while (found := state.read_state()) is None or not found.step:
        assert time.monotonic() < deadline, "the worker did not begin"
        time.sleep(0.02)
    return int(json.loads(state.attempt(1).environment.read_text())["pid"])


def test_a_worker_runs_to_its_end(executor: Executor, order: Callable[..., Path]) -> None:
    path = order()
    handle = start(executor, path)
    assert ended(executor, handle) == Exit(code=EXIT_DONE)
    assert executor.poll(handle) == Exit(code=EXIT_DONE)
    assert RunFolder(path.parent).done


def test_several_workers_report_their_own_exits(executor: Executor, order: Callable[..., Path]) -> None:
    good = start(executor, order("train-good"))
    bad = start(executor, order("train-bad", fails={"1": "data"}))
    claimed_path = order("train-claimed")
    with acquire(RunFolder(claimed_path.parent).claim_path):
        claimed = start(executor, claimed_path)
        assert ended(executor, claimed).code == EXIT_CLAIMED
    assert ended(executor, bad).code == EXIT_FAILED
    assert ended(executor, good).code == EXIT_DONE


def test_the_environment_reaches_the_worker(executor: Executor, order: Callable[..., Path]) -> None:
    path = order()
    ended(executor, start(executor, path, ABLAB_TEST_WORD="hello world"))
    variables = json.loads(RunFolder(path.parent).attempt(1).environment.read_text())["variables"]
    assert variables["ABLAB_TEST_WORD"] == "hello world"
    assert variables["OMP_WAIT_POLICY"].lower() == "passive"
    assert variables["OMP_NUM_THREADS"] == "1"


def test_output_goes_to_the_log_of_the_attempt(executor: Executor, order: Callable[..., Path]) -> None:
    path = order(attempt=2, says="a word for the log")
    ended(executor, start(executor, path))
    assert "a word for the log" in RunFolder(path.parent).attempt(2).log.read_text()


def test_sigterm_lets_the_worker_stop_cleanly(executor: Executor, order: Callable[..., Path]) -> None:
    path = order(steps=1000, seconds=0.02)
    handle = start(executor, path)
    begun(path)
    executor.signal(handle, signal.SIGTERM)
    assert ended(executor, handle).code == EXIT_STOPPED
    end = RunFolder(path.parent).attempt(1).read_end()
    assert end is not None and end["kind"] == "stopped"


def test_sigkill_ends_a_worker_that_does_not_listen(executor: Executor, order: Callable[..., Path]) -> None:
    path = order(steps=1000, seconds=0.02, deaf=True)
    handle = start(executor, path)
    watch = Watch(begun(path))
    executor.signal(handle, signal.SIGTERM)
    time.sleep(0.1)
    assert executor.poll(handle) is None
    executor.signal(handle, signal.SIGKILL)
    found = ended(executor, handle)
    assert found.code == -signal.SIGKILL or found.kind == "killed"
    assert watch.ended
    watch.close()


def test_a_worker_killed_from_outside_is_reported(executor: Executor, order: Callable[..., Path]) -> None:
    path = order(steps=1000, seconds=0.02)
    handle = start(executor, path)
    os.kill(begun(path), signal.SIGKILL)
    assert ended(executor, handle).code == -signal.SIGKILL


def test_a_signal_before_the_worker_is_there_is_not_lost(executor: Executor, order: Callable[..., Path]) -> None:
    path = order(steps=1000, seconds=0.02)
    handle = start(executor, path)
    executor.signal(handle, signal.SIGTERM)
    found = ended(executor, handle)
    # Where it hit before the worker listened, the default action ended it.
    assert found.code in {EXIT_STOPPED, -signal.SIGTERM} or found.kind == "stopped"


# --- The local executor alone ---------------------------------------------------------------------------------------


def test_workers_outlive_the_executor(order: Callable[..., Path], tmp_path: Path) -> None:
    executor = LocalExecutor(program=PROGRAM)
    path = order(steps=40, seconds=0.02)
    start(executor, path)
    watch = Watch(begun(path))
    executor.close()
    assert not watch.ended
    deadline = time.monotonic() + 60
    while not watch.ended and time.monotonic() < deadline:
        time.sleep(0.02)
    watch.close()
    assert RunFolder(path.parent).done


def test_a_template_that_dies_takes_no_worker_with_it(order: Callable[..., Path]) -> None:
    executor = LocalExecutor(program=PROGRAM)
    first_path, second_path = order("train-1", steps=50, seconds=0.02), order("train-2")
    first = start(executor, first_path)
    pid = begun(first_path)
    template = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(template, signal.SIGKILL)
    second = start(executor, second_path)
    assert ended(executor, second).code == EXIT_DONE
    # Nobody is left to tell the exit status of a worker whose parent is gone.
    assert ended(executor, first).code is None
    assert RunFolder(first_path.parent).done and RunFolder(second_path.parent).done
    executor.close()


def test_a_template_that_cannot_start_gives_way_to_cold_workers(order: Callable[..., Path]) -> None:
    broken = Program(worker=(str(FAKE),), template=("-c", "raise SystemExit(1)"))
    executor = LocalExecutor(program=broken)
    assert ended(executor, start(executor, order())).code == EXIT_DONE
    executor.close()


def test_a_worker_that_is_not_there_yet_can_be_killed(order: Callable[..., Path]) -> None:
    slow = Program(worker=(str(FAKE),), template=("-c", "import time; time.sleep(60)"))
    executor = LocalExecutor(program=slow)
    path = order()
    handle = start(executor, path)
    executor.signal(handle, signal.SIGTERM)
    assert executor.poll(handle) is None
    executor.signal(handle, signal.SIGKILL)
    assert executor.poll(handle) == Exit(code=-signal.SIGKILL)
    executor.close()
    assert RunFolder(path.parent).attempts() == []


def test_the_log_of_a_cold_worker_that_cannot_even_start(order: Callable[..., Path]) -> None:
    executor = LocalExecutor(program=Program(worker=("-m", "no_such_module"), template=None))
    path = order()
    assert ended(executor, start(executor, path)).code == 1
    assert "no_such_module" in RunFolder(path.parent).attempt(1).log.read_text()
    executor.close()


def test_waiting_costs_nothing_and_ends_with_the_worker(order: Callable[..., Path]) -> None:
    import select

    for program in (PROGRAM, COLD):
        executor = LocalExecutor(program=program)
        handle = start(executor, order(f"train-{program.template is None}", steps=10, seconds=0.02))
        while executor.poll(handle) is None:
            poll = select.poll()
            for descriptor in executor.waitables():
                poll.register(descriptor, select.POLLIN)
            assert poll.poll(60_000), "nothing became readable"
        executor.close()


def test_gpus_of_a_cold_worker(order: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    executor = LocalExecutor(program=COLD)
    path = order()
    ended(executor, executor.start(path, resources=Resources(devices=(5, 6)), env={}))
    variables = json.loads(RunFolder(path.parent).attempt(1).environment.read_text())["variables"]
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["CUDA_DEVICE_ORDER"]) == ("5,6", "PCI_BUS_ID")
    executor.close()


def test_a_warm_worker_takes_its_gpus_from_the_order(
    order: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    executor = LocalExecutor(program=PROGRAM)
    path = order()
    ended(executor, executor.start(path, resources=Resources(devices=(5,)), env={}))
    variables = json.loads(RunFolder(path.parent).attempt(1).environment.read_text())["variables"]
    assert "CUDA_VISIBLE_DEVICES" not in variables
    executor.close()


def test_several_processes_go_through_torchrun(tmp_path: Path) -> None:
    command = PROGRAM.command(tmp_path / "order.json", processes=2)
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert command[-2:] == [str(FAKE), str(tmp_path / "order.json")]


# --- SLURM alone ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(slurm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", f"{slurm_folder}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "cluster"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    return folder


def slurm(tmp_path: Path, **parameters: Any) -> Any:
    from ablab.launch.executors.slurm import SlurmExecutor

    return SlurmExecutor(folder=tmp_path / "submitit", parameters=parameters, program=PROGRAM, every=0.05)


@pytest.mark.parametrize(
    ("state", "kind"),
    [("TIMEOUT", "time-limit"), ("OUT_OF_MEMORY", "out-of-memory"), ("NODE_FAIL", "lost"), ("PREEMPTED", "lost")],
)
def test_what_slurm_says_becomes_a_kind(
    cluster: Path, tmp_path: Path, order: Callable[..., Path], state: str, kind: str
) -> None:
    (cluster / "hold").touch()
    executor = slurm(tmp_path)
    handle = start(executor, order())
    assert executor.poll(handle) is None
    (cluster / "1.state").write_text(state)
    found = ended(executor, handle)
    assert found.kind == kind and state in found.message


def test_a_job_in_the_queue_is_taken_out_of_it(cluster: Path, tmp_path: Path, order: Callable[..., Path]) -> None:
    (cluster / "hold").touch()
    executor = slurm(tmp_path)
    handle = start(executor, order())
    executor.signal(handle, signal.SIGTERM)
    assert ended(executor, handle).kind == "stopped"
    assert (cluster / "1.state").read_text().startswith("CANCELLED")


def test_the_job_asks_for_what_the_run_needs(cluster: Path, tmp_path: Path, order: Callable[..., Path]) -> None:
    executor = slurm(tmp_path, partition="long", slurm_time=90)
    resources = Resources(devices=(0, 1), threads=3, world_size=2)
    (cluster / "hold").touch()
    executor.start(order(), resources=resources, env={})
    script = next((tmp_path / "submitit").glob("*submission*.sh")).read_text()
    for line in ("--cpus-per-task=6", "--gpus-per-node=2", "--partition=long", "--time=90"):
        assert line in script


def test_slurm_parameters_are_checked(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_parameter"):
        slurm(tmp_path, no_such_parameter=1)


def test_slurm_needs_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="srun"):
        slurm(tmp_path)
