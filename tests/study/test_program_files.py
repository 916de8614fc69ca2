"""Files that a command uses are found by its words and its imports, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.contract.command import Command
from ablab.study.program_files import undeclared_files, used_files


@pytest.fixture
def base(tmp_path: Path) -> Path:
    files = {
        "train.py": "import torch, utils\nfrom pkg.deep import thing\nraise SystemExit('not to be run')\n",
        "utils.py": "def f():\n    from . import nothing\n    import late\n",
        "late.py": "",
        "pkg/__init__.py": "from .near import x\n",
        "pkg/near.py": "import broken\n",
        "pkg/deep.py": "from pkg import near\nfrom ..outside import y\n",
        "broken.py": "def (:\n",
        "unused.py": "",
        "conf/a.yaml": "a: 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


ALL = {"train.py", "utils.py", "late.py", "pkg/__init__.py", "pkg/near.py", "pkg/deep.py", "broken.py"}


def test_words_and_imports_are_followed(base: Path) -> None:
    used = used_files(Command(command="python train.py --config=conf/a.yaml --out {output}/train.py"), base)
    assert set(used) == ALL | {"conf/a.yaml"}
    assert used["late.py"] == "utils.py imports it" and used["conf/a.yaml"] == "the command names it"


@pytest.mark.parametrize(
    "command",
    [
        Command(command="python -m pkg.deep"),
        Command(command="cd . && python -u pkg/deep.py | tee {output}/log", shell=True),
        Command(command=["torchrun", "--nproc-per-node=2", "pkg/deep.py"]),
    ],
)
def test_modules_and_shell_lines_are_read(base: Path, command: Command) -> None:
    assert {"pkg/deep.py", "pkg/__init__.py", "pkg/near.py", "broken.py"} <= set(used_files(command, base)) < ALL


def test_what_is_declared_is_left_out(base: Path) -> None:
    command = "python train.py --config conf/a.yaml"
    declared = Command(command=command, code=["train.py", "utils.py", "pkg"], data=["conf"])
    assert set(undeclared_files(declared, base)) == {"late.py", "broken.py"}
    assert undeclared_files(Command(command=command, code=["."][:0] + sorted(ALL), data=["conf"]), base) == {}


def test_a_program_on_the_path_is_no_file_beside_the_study(base: Path) -> None:
    (base / "sort").write_text("")
    assert used_files(Command(command="sort -n"), base) == {}
    assert set(used_files(Command(command="./sort -n"), base)) == {"sort"}
