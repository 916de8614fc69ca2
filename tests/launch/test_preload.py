"""A task's slow libraries are imported once, by the template."""

from __future__ import annotations

import subprocess
import sys

from ablab.launch.executors.base import Program


def test_the_template_is_told_what_to_import() -> None:
    assert Program().preloading(("peft",)).template == ("-m", "ablab.worker.template", "peft")
    assert Program(template=None).preloading(("peft",)).template is None
    assert Program().preloading(()) == Program()


def test_a_template_imports_what_it_is_told_and_does_not_miss_what_is_not_installed() -> None:
    code = (
        "import sys; sys.argv = ['template', 'no_such_library', 'colorsys']; "
        "import ablab.worker.template as t; t.MODULES = (); t.main(); print('colorsys' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1] == "True"
