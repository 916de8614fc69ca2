"""The generic stage kind `command`: any program, unchanged, as a stage of a pipeline.

Only the declaration stands here, with what can be told from it: which parameters a command reads, what is wrong with
it, which files it needs and which metrics it yields. `ablab.worker.stages.command` runs it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ablab.contract.base import Open, Scalar, Strict, setting
from ablab.contract.patterns import STEP, names_of_line, names_of_regex
from ablab.contract.placeholders import BUILT_IN, FAMILIES, Placeholder, find
from ablab.contract.registry import nearest
from ablab.contract.task import Complaint, DataReference, Sections, StageSpec

#: Section of the task `command` that holds the parameters of an arm.
SECTION = "parameters"
#: What programs say when memory runs out, on the host or on a GPU.
MEMORY_WORDS = r"out of memory|OutOfMemoryError|MemoryError|bad_alloc|[Cc]annot allocate memory"

Paths = tuple[Annotated[str, Field(min_length=1)], ...]
_SOURCES = ("line", "regex", "jsonl", "csv", "json", "tensorboard", "logged")


class Metrics(Strict):
    """One place where a program tells its metrics; exactly one of line, regex, jsonl, csv, json, tensorboard, logged.

    A name that begins with eval_, val_, test_ or train_ is written val/, test/ or train/, and a bare `loss` is
    train/loss, unless `names` says otherwise.
    """

    line: str | None = setting(
        None,
        "Line of the output, with {name} where a number stands, {step} for the step and {_} for text that varies: "
        "`epoch {step}: loss {train/loss} acc {val/accuracy}`.",
    )
    regex: str | None = setting(None, "Regular expression on lines of the output; named groups are metrics.")
    jsonl: str | None = setting(None, "File of JSON objects, one a line. Paths may hold * and {output}.")
    csv: str | None = setting(None, "CSV file with a header.")
    json_file: str | None = setting(None, "JSON file, read whole whenever it changes.", alias="json")
    records: str | None = setting(None, "Key of the JSON file that holds a list of rows (log_history).")
    tensorboard: str | None = setting(None, "Folder of TensorBoard event files.")
    logged: Literal[True] | None = setting(None, "What the program tells by `ablab.log(step, name=value)`.")
    names: dict[str, str] = setting(default_factory=dict, description="Metric name by the name the program uses.")
    step: str | None = setting(
        None, "Name of the step in a file; without it step, global_step, iteration or epoch, whichever is there."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Metrics:
        given = [name for name in _SOURCES if getattr(self, "json_file" if name == "json" else name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}; found {' and '.join(given) or 'none'}")
        if self.records is not None and self.json_file is None:
            raise ValueError("records belongs to json")
        if self.regex is not None:
            try:
                groups = re.compile(self.regex).groupindex
            except re.error as error:
                raise ValueError(f"regex is not a regular expression: {error}") from None
            if not groups:
                raise ValueError("regex needs named groups, for example loss (?P<loss>\\S+)")
        if self.line is not None and not names_of_line(self.line):
            raise ValueError("line needs a {name} where a number stands, for example loss {train/loss}")
        return self

    @property
    def file(self) -> str | None:
        """Path of the file or folder it reads; None for the program's output."""
        return self.jsonl or self.csv or self.json_file or self.tensorboard

    def metric(self, name: str) -> str:
        """Return the metric name for a name that the program uses."""
        return self.names.get(name) or usual_name(name)

    def yields(self) -> tuple[str, ...] | None:
        """Return the metrics it yields; None where only running can tell."""
        if self.line is not None:
            found = names_of_line(self.line)
        elif self.regex is not None:
            found = names_of_regex(self.regex)
        else:
            return None
        return tuple(self.metric(name) for name in found if name != (self.step or STEP))


def usual_name(name: str) -> str:
    """Return the metric name for a name as programs write it: val_loss is val/loss, loss is train/loss."""
    if name in ("loss", "train_loss"):
        return "train/loss"
    match = re.fullmatch(r"(eval|val|valid|validation|test|train)_(\w.*)", name)
    if match is None:
        return name
    split = match[1] if match[1] in ("test", "train") else "val"
    return f"{split}/{match[2]}"


class Resume(Strict):
    """How a program goes on after it was stopped or killed: an argument that names a file it wrote."""

    file: str = setting(..., "File that must be there before the argument is given; may hold * (the newest counts).")
    argument: str = setting("--resume {file}", "What is appended to the command; {file} is the file's path.")


class OutOfMemory(Strict):
    """How to tell that memory ran out, and which parameters to change for the next attempt."""

    pattern: str = setting(MEMORY_WORDS, "Regular expression on the end of the output.")
    exit_code: int | None = setting(None, "Exit status that means it.")
    halve: Paths = setting((), "Parameters to halve; whole numbers, halved while they are even.")
    double: Paths = setting((), "Parameters to double, so that the effective batch stays (accumulation).")

    @model_validator(mode="after")
    def _pattern_compiles(self) -> OutOfMemory:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is not a regular expression: {error}") from None
        if self.double and not self.halve:
            raise ValueError("double needs halve: doubling alone saves no memory")
        return self


class Command(Strict):
    """Parameters of a command stage. Its inside is not audited."""

    command: str | Annotated[tuple[str, ...], Field(min_length=1)] = setting(
        ...,
        "Program and arguments, as a list or as one line (quotes group, no shell). {name} stands for a parameter; "
        "{seed}; {output}, the folder of the run's artifacts; {input.STAGE} and {checkpoint.STAGE} of a stage it "
        "needs; {device}; {bundled.NAME}; {study}; {name?--flag} for a flag while name is true; {{...}} for braces.",
    )
    shell: bool = setting(False, "Give the line to /bin/sh; values of parameters are quoted.")
    parameters: dict[str, Scalar] = setting(default_factory=dict, description="Values of its own, by name.")
    folder: str = setting(
        ".", "Folder the program's relative paths start in, relative to the study. It runs in a copy.", keyed=False
    )
    code: Paths = setting(
        (), "Files and folders of code it runs; in the key by content. A copy frozen at launch runs.", keyed=False
    )
    data: Paths = setting((), "Files and folders it reads; in the key by content.", keyed=False)
    hub: Paths = setting(
        (), "Models and data sets of the hub it loads: model:owner/name or dataset:owner/name; in the key by revision."
    )
    outputs: Paths = setting((), "Files or folders it must have written at the end, in {output} or where it runs.")
    env: dict[str, str] = setting(default_factory=dict, description="Variables of its environment.")
    metrics: tuple[Metrics, ...] = setting((), "Where it tells its metrics; nothing means by `ablab.log`.")
    direction: dict[str, Literal["lower", "higher"]] = setting(
        default_factory=dict, description="Which way a metric is better, where its name does not tell."
    )
    steps: int | str | None = setting(
        None, "Steps it takes, or the parameter that says so; for progress only.", keyed=False
    )
    resume: Resume | None = setting(None, "How it resumes; without it a killed run starts at zero.", keyed=False)
    out_of_memory: OutOfMemory = setting(
        default_factory=OutOfMemory, description="What to do when memory runs out.", keyed=False
    )
    grace: float = setting(
        60.0, "Seconds between the request to stop (SIGTERM) and the kill.", ge=0, keyed=False, unit="seconds"
    )

    @model_validator(mode="after")
    def _command_is_whole(self) -> Command:
        if self.shell and not isinstance(self.command, str):
            raise ValueError("with shell: true, command is one line of text")
        try:
            words = self.words()
        except ValueError as error:
            raise ValueError(f"command cannot be split into arguments: {error}; quote it as a shell would") from None
        if not words or not words[0].strip():
            raise ValueError("command names no program")
        return self

    def words(self) -> list[str]:
        """Return program and arguments, placeholders and all; for a shell its whole line."""
        if isinstance(self.command, tuple):
            return list(self.command)
        return [self.command] if self.shell else shlex.split(self.command)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (path below the stage, text) of everything that may hold placeholders."""
        for word in self.words():
            yield "command", word
        for name, value in self.env.items():
            yield f"env.{name}", value
        for path in self.outputs:
            yield "outputs", path
        for source in self.metrics:
            if source.file is not None:
                yield "metrics", source.file
        if self.resume is not None:
            yield "resume.file", self.resume.file

    def placeholders(self) -> list[Placeholder]:
        """Return every placeholder of the stage, the resume argument's {file} left out."""
        resume = [] if self.resume is None else [p for p in find([self.resume.argument]) if p.name != "file"]
        return list(dict.fromkeys([*find(text for _, text in self.texts()), *resume]))


def values_of(sections: Sections, parameters: Command) -> dict[str, Scalar]:
    """Return the values of a command by name: the section's, and its own on top."""
    section = sections.get(SECTION)
    return {**(section.values if isinstance(section, Open) else {}), **parameters.parameters}


def _named(parameters: Any) -> frozenset[str]:
    """Return the names a command reads, besides the built-in ones."""
    assert isinstance(parameters, Command)
    return frozenset(p.name for p in parameters.placeholders() if p.family is None and p.name not in BUILT_IN)


def _check(sections: Sections, parameters: Any, needs: tuple[str, ...] | None) -> list[Complaint]:
    assert isinstance(parameters, Command)
    values = values_of(sections, parameters)
    return [
        *_names_that_clash(values),
        *_unknown_placeholders(parameters, values, needs),
        *_unused(parameters),
        *_memory_names(parameters, values),
        *_paths(parameters),
    ]


def _names_that_clash(values: Mapping[str, Scalar]) -> Iterator[Complaint]:
    for name in values:
        if name in BUILT_IN:
            yield Complaint(path=f"{SECTION}.{name}", message=f"{{{name}}} already means {BUILT_IN[name]}; rename it")
        elif not re.fullmatch(r"[A-Za-z_][\w\-]*", name):
            message = f"{name!r} cannot be a placeholder: letters, digits, _ and - only"
            yield Complaint(path=f"{SECTION}.{name}", message=message)


def _unknown_placeholders(
    parameters: Command, values: Mapping[str, Scalar], needs: tuple[str, ...] | None
) -> Iterator[Complaint]:
    texts = list(parameters.texts())
    if parameters.resume is not None:
        texts.append(("resume.argument", parameters.resume.argument.replace("{file}", "")))
    for path, text in texts:
        for place in find([text]):
            if place.family is not None:
                yield from _unknown_member(path, place, parameters, needs)
            elif place.name not in values and place.name not in BUILT_IN:
                known = [*values, *BUILT_IN, *(f"{family}.NAME" for family in FAMILIES)]
                message = (
                    f"{{{place.name}}} is no parameter; known: {', '.join(known)}; for braces that are meant write "
                    f"{{{{{place.name}}}}}"
                )
                yield Complaint(path=path, message=message, suggestion=nearest(place.name, known))


def _unknown_member(
    path: str, place: Placeholder, parameters: Command, needs: tuple[str, ...] | None
) -> Iterator[Complaint]:
    if place.family == "revision":
        known: tuple[str, ...] | None = tuple(hub_name(text)[1] for text in parameters.hub)
        what = "stands in `hub:`"
    else:
        known, what = (needs, "is needed by this stage (`needs:`)") if place.family != "bundled" else (None, "")
    if known is not None and place.member not in known:
        message = f"{{{place.name}}}: no {place.member!r} {what}; there are: {', '.join(known) or 'none'}"
        near = nearest(place.member, known)
        yield Complaint(path=path, message=message, suggestion=near and f"{place.family}.{near}")


def _unused(parameters: Command) -> Iterator[Complaint]:
    """Complain about values of the stage itself that its command does not use; those of a section are told apart."""
    used = _named(parameters)
    for name in parameters.parameters:
        if name not in used and name not in BUILT_IN:
            message = f"the parameter {name!r} is not used: the command has no {{{name}}}"
            yield Complaint(path=f"{SECTION}.{name}", message=message, suggestion=nearest(name, used))


def _memory_names(parameters: Command, values: Mapping[str, Scalar]) -> Iterator[Complaint]:
    memory = parameters.out_of_memory
    for key, names in (("halve", memory.halve), ("double", memory.double)):
        for name in names:
            value = values.get(name)
            if name not in values:
                message = f"{name!r} is no parameter of this command; it has: {', '.join(values) or 'none'}"
                yield Complaint(path=f"out_of_memory.{key}", message=message, suggestion=nearest(name, values))
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                message = f"{name} is {value!r}, and only whole numbers from 1 can be {key}d"
                yield Complaint(path=f"out_of_memory.{key}", message=message)
    if isinstance(parameters.steps, str) and parameters.steps not in values:
        message = f"{parameters.steps!r} is no parameter of this command; it has: {', '.join(values) or 'none'}"
        yield Complaint(path="steps", message=message, suggestion=nearest(parameters.steps, values))
    elif isinstance(parameters.steps, str) and not isinstance(values[parameters.steps], int):
        found = values[parameters.steps]
        yield Complaint(path="steps", message=f"{parameters.steps} is {found!r}, not a number of steps")


def _paths(parameters: Command) -> Iterator[Complaint]:
    for key in ("code", "data"):
        for path in getattr(parameters, key):
            if _leaves(path) and not (key == "data" and posixpath.isabs(path)):
                message = f"{path} is outside the folder the command runs in; set `folder:` to one that holds it" + (
                    ", or write the path in full" if key == "data" else ""
                )
                yield Complaint(path=key, message=message)
    for text in parameters.hub:
        if hub_name(text)[0] not in ("model", "dataset") or not hub_name(text)[1]:
            yield Complaint(path="hub", message=f"expected model:owner/name or dataset:owner/name, found {text!r}")


def _leaves(path: str) -> bool:
    """Tell whether a path is no place inside a folder."""
    normal = posixpath.normpath(path)
    return posixpath.isabs(normal) or normal == "." or normal.split("/")[0] == ".."


def hub_name(text: str) -> tuple[str, str, str | None]:
    """Return (repository, name, revision) of `dataset:owner/name@revision`."""
    kind, _, rest = text.partition(":")
    name, _, revision = rest.partition("@")
    return kind, name, revision or None


def _in_folder(parameters: Command, path: str) -> str:
    """Return a path of the command relative to the study."""
    return posixpath.normpath(posixpath.join(parameters.folder, path))


def _code_files(_: Sections, parameters: Any) -> list[str]:
    assert isinstance(parameters, Command)
    return [_in_folder(parameters, path) for path in parameters.code]


def _references(_: Sections, parameters: Any) -> list[DataReference]:
    assert isinstance(parameters, Command)
    found = [
        # What a program makes of a path may depend on it: the path as written belongs to what the data is.
        DataReference(kind="file", name=_in_folder(parameters, path), path=f"data ({path})")
        for path in parameters.data
    ]
    bundled = [place.member for place in parameters.placeholders() if place.family == "bundled"]
    found += [DataReference(kind="bundled", name=name, path="command") for name in bundled]
    for text in parameters.hub:
        kind, name, revision = hub_name(text)
        repository: Literal["dataset", "model"] = "model" if kind == "model" else "dataset"
        found.append(DataReference(kind="hub", name=name, path="hub", revision=revision, repository=repository))
    return found


def _seeded(_: Sections, parameters: Any) -> bool:
    assert isinstance(parameters, Command)
    return any(place.name == "seed" for place in parameters.placeholders())


def _yields(parameters: Any) -> tuple[str, ...] | None:
    assert isinstance(parameters, Command)
    found: list[str] = []
    for source in parameters.metrics:
        names = source.yields()
        if names is None:
            return None
        found += names
    return tuple(dict.fromkeys(found)) if parameters.metrics else None


COMMAND = StageSpec(
    kind="command",
    parameters=Command,
    run="ablab.worker.stages.command:run",
    seeded=_seeded,
    references=_references,
    files=_code_files,
    summary="run a program of one's own; its inside is not audited",
    reads=_named,
    check=_check,
    yields=_yields,
)
