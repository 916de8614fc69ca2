import pytest

from ablab.contract.failure import ConfigError
from ablab.launch.on_demand import as_input, compute, on_demand_order, scratch
from ablab.store.layout import RunFolder

TASK = """
from ablab.contract.base import Strict, setting
from ablab.contract.failure import DataError
from ablab.contract.result import Outcome
from ablab.contract.task import StageSpec, TaskSpec

class Sum(Strict):
    numbers: tuple[int, ...] = setting(...)

def add(order, context):
    (context.artifacts / "note.txt").write_text("here")
    if not order.parameters["numbers"]:
        raise DataError("no numbers to add; give at least one", file="numbers")
    return Outcome(metrics={"sum": float(sum(order.parameters["numbers"]))}, artifacts={"note": "artifacts/note.txt"})

SPEC = TaskSpec(
    name="adding", title="Adding", sections={}, pipeline={"add": {}},
    stages={"add": StageSpec(kind="add", parameters=Sum, run="adding.py:add", seeded=False)},
)
"""


@pytest.fixture
def order(tmp_path):
    (tmp_path / "adding.py").write_text(TASK)

    def made(folder, numbers):
        return on_demand_order(
            task="adding.py:SPEC", kind="add", folder=folder, parameters={"numbers": numbers}, threads=1,
            study_folder=str(tmp_path),
        )  # fmt: skip

    return made


def test_a_worker_computes_and_the_folder_goes_when_it_is_scratch(order):
    with scratch() as folder:
        result = compute(order(folder, [1, 2, 3]))
        assert result.metrics == {"sum": 6.0}
        assert (folder / result.artifacts["note"].path).read_text() == "here"
        assert as_input(RunFolder(folder)).kind == "add"
    assert not folder.exists()


def test_what_went_wrong_in_the_worker_is_told_here(order, tmp_path):
    from ablab.contract.failure import DataError

    with pytest.raises(DataError, match="no numbers to add; give at least one"):
        compute(order(tmp_path / "run", []))
    with pytest.raises(ConfigError, match="not finished"):
        as_input(RunFolder(tmp_path / "run"))
