"""A command line taken apart: flags as parameters; seed, output and device flags as placeholders. Nothing is run."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ablab.contract.base import Scalar
from ablab.contract.failure import ConfigError
from ablab.contract.placeholders import BUILT_IN, plain
from ablab.study.problems import StudyError
from ablab.study.yaml12 import parse_value

_SEED = frozenset(("seed", "random_seed", "manual_seed", "rng_seed", "global_seed", "random_state"))
_OUTPUT = re.compile(
    r"(?:out|output)(?:_?(?:dir|path|folder|file))?$|save_?(?:dir|path)$|"
    r"(?:log|results?|checkpoint|ckpt|work|run|exp|model|default_root)_?dir$"
)
_OPERATORS = frozenset(("|", "||", "&&", ";", ">", ">>", "<", "&", "2>&1"))


@dataclass(kw_only=True)
class Line:
    """A command line taken apart.

    Args:
        words: with placeholders.
        values: parameters found, by name.
        seed: value of the seed flag.
        env: variables set before the program.
        shell: it needs a shell.
    """

    words: list[str] = field(default_factory=list)
    values: dict[str, Scalar] = field(default_factory=dict)
    seed: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    shell: bool = False


def take_apart(text: str, base: Path) -> Line:
    """Return a command line with its flags as parameters."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--command {text!r} cannot be split into arguments: {error}") from None
    line = Line(shell=any(word in _OPERATORS for word in words))
    while words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
        # GPUs are leased to each run; which ones is not for the study to say.
        if match[1] != "CUDA_VISIBLE_DEVICES":
            line.env[match[1]] = match[2]
        words.pop(0)
    if not words:
        raise ConfigError(f"--command {text!r} names no program")
    begin = _begin(words, base)
    line.words = [_literal(word) for word in words[:begin]]
    rest = words[begin:]
    while rest:
        word = rest.pop(0)
        follows = rest[0] if rest and not _is_flag(rest[0]) and rest[0] not in _OPERATORS else None
        if word in _OPERATORS or not (_is_flag(word) or _is_setting(word, base)):
            line.words.append(_literal(word))
        elif "=" in word:
            flag, _, value = word.partition("=")
            line.words.append(f"{flag}={_place(line, flag, value, base)}")
        elif follows is not None:
            line.words += [word, _place(line, word, rest.pop(0), base)]
        else:
            line.words.append(f"{{{_add(line, word, True)}?{word}}}")
    return line


def join(line: Line) -> str:
    """Return the words as one line; only what a space, a quote or a backslash makes necessary is quoted."""
    if line.shell:
        return " ".join(word if word in _OPERATORS or "{" in word else shlex.quote(word) for word in line.words)
    return " ".join(shlex.quote(word) if not word or re.search(r"[\s'\"\\]", word) else word for word in line.words)


def _begin(words: list[str], base: Path) -> int:
    """Return where the program's own arguments begin: behind its script, or behind the program itself."""
    for position, word in enumerate(words):
        if word == "-m" and position + 1 < len(words) and words[0].rpartition("/")[2].startswith("python"):
            return position + 2
        if (base / word).is_file() and (position == 0 or not _is_flag(word)):
            return position + 1
    return 1


def _is_flag(word: str) -> bool:
    return bool(re.match(r"--?[A-Za-z]", word))


def _is_setting(word: str, base: Path) -> bool:
    """Whether a word is of the form key=value (hydra, and programs like it)."""
    return bool(re.match(r"\+?[A-Za-z_][\w.]*=", word)) and not (base / word).exists()


def _place(line: Line, flag: str, value: str, base: Path) -> str:
    """Return what stands for a flag's value: a placeholder, or the value itself where it names a file."""
    name = _name(flag)
    typed = _typed(value)
    if (name in _SEED or name.endswith("_seed")) and isinstance(typed, int) and not isinstance(typed, bool):
        line.seed = typed
        return "{seed}"
    if name == "device" and value.partition(":")[0] in ("cpu", "cuda", "auto", "gpu"):
        return "{device}"
    if _OUTPUT.match(name) and not (base / value).is_file():
        path = PurePosixPath(value)
        return f"{{output}}/{path.name}" if path.suffix else "{output}"
    if isinstance(typed, str) and (base / value).exists():
        return _literal(value)
    return f"{{{_add(line, flag, typed)}}}"


def _add(line: Line, flag: str, value: Scalar) -> str:
    """Note a parameter under a name of its own; return the name."""
    name = _name(flag)
    if name in BUILT_IN or not re.match(r"[A-Za-z_]", name):
        name = f"{name}_" if name else "value"
    number, free = 2, name
    while free in line.values:
        free, number = f"{name}_{number}", number + 1
    line.values[free] = value
    return free


def _name(flag: str) -> str:
    return re.sub(r"\W+", "_", flag.lstrip("-+")).strip("_")


def _typed(value: str) -> Scalar:
    if value in ("True", "False"):
        # As Python programs take and print them; `true` would be another word to them.
        return value
    try:
        typed = parse_value(value, origin="--command", path="")
    except StudyError:
        return value
    # A number that would be printed otherwise (007, 0x10) stays as it was typed; 3e-4 and 0.0003 are the same.
    if (isinstance(typed, float) and math.isfinite(typed)) or (isinstance(typed, bool | int) and plain(typed) == value):
        return typed
    return value


def _literal(word: str) -> str:
    return re.sub(r"\{([^{}]*)\}", r"{{\1}}", word)
