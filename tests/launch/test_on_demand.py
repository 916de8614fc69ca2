import pytest

from ablab.contract.failure import DataError
from ablab.launch.on_demand import on_demand

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
def add(tmp_path):
    (tmp_path / "adding.py").write_text(TASK)

    def asked(numbers, **where):
        return on_demand(
            task="adding.py:SPEC", kind="add", parameters={"numbers": numbers}, threads=1, study_folder=str(tmp_path),
            **where,
        )  # fmt: skip

    return asked


def test_a_worker_computes_and_its_folder_goes_afterwards(add):
    with add([1, 2, 3]) as answer:
        assert answer.result.metrics == {"sum": 6.0}
        assert (answer.folder / answer.result.artifacts["note"].path).read_text() == "here"
    assert not answer.folder.exists()


def test_what_went_wrong_in_the_worker_is_told_here_and_leaves_nothing(add, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    with pytest.raises(DataError, match="no numbers to add; give at least one"), add([], beside=beside):
        pass
    assert not list(beside.iterdir())
