"""Secrets are never stored: what looks like one is replaced before it is written or shown.

A value counts as secret by the name it stands under (TOKEN, SECRET, PASSWORD, ...), by its shape (hf_..., sk-...,
AKIA...), or because a variable of the environment or a `.env` file holds it under such a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: What stands where a secret was.
HIDDEN = "[redacted]"

#: Variable that lists the `.env` files that were read (`ablab.store.dotenv`).
FILES_VARIABLE = "ABLAB_ENV_FILES"

#: Words that make a name secret wherever they stand in it.
_ALWAYS = re.compile(
    r"(?<![a-z0-9])(?:[a-z0-9]*passw(?:or)?d|passwd|passphrase|(?<=_)pwd|credentials?|authorization|secrets?|cookies?|"
    r"(?:api|access|private|account|encryption|signing|ssh|auth|wandb|openai|anthropic|azure|aws|comet)_?key|"
    r"(?:access|auth|api|bearer|refresh|session|hf|hub|github|gitlab|huggingface|wandb|id|oauth|personal)_?token)"
    r"(?![a-z0-9])"
)
#: Names of variables, by custom in capitals.
_VARIABLE = re.compile(r"(?:[A-Z0-9_]*_)?(?:TOKEN|PASS|PAT)(?:_[A-Z0-9_]+)?")
#: A "token" in lower case may be one of a vocabulary: then its value decides.
_PERHAPS = re.compile(r"(?<![a-z0-9])token$")
_VOCABULARY = re.compile(
    r"(?<![a-z0-9])(?:bos|eos|pad|unk|mask|sep|cls|image|img|video|audio|special|begin|start|end|first|last|next|new|"
    r"prompt|document|separator|per|of|query|target|stop|fill|user|system|assistant)_token$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

#: Token shapes of common services; each is long and particular enough not to hit ordinary text.
_SHAPES = re.compile(
    r"""
      hf_[A-Za-z0-9]{20,}                                   # Hugging Face
    | api_org_[A-Za-z0-9]{20,}
    | sk-(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{20,}              # OpenAI, Anthropic, OpenRouter
    | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}
    | glpat-[A-Za-z0-9_\-]{16,}                             # GitLab
    | (?:AKIA|ASIA)[A-Z0-9]{16}                             # AWS
    | AIza[A-Za-z0-9_\-]{35}                                # Google
    | ya29\.[A-Za-z0-9_\-]{20,}
    | xox[abeoprs]-[A-Za-z0-9\-]{10,}                       # Slack
    | (?<=hooks\.slack\.com/)[a-z]+/[A-Za-z0-9_\-/]{16,}   # webhooks of Slack, Discord
    | (?<=/api/webhooks/)\d{10,}/[A-Za-z0-9_\-]{16,}
    | pypi-[A-Za-z0-9_\-]{32,}
    | wandb_v1_[A-Za-z0-9_\-]{20,}
    | eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}          # JSON web token
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----.*?(?:-----END[ A-Z]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_BOUNDED = re.compile(rf"(?<![A-Za-z0-9_])(?:{_SHAPES.pattern})", re.VERBOSE | re.DOTALL)
#: `https://user:password@host`, and `NAME=value`, `--name value`, `name: value` with a secret's name.
_LOGIN = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_ASSIGNED = re.compile(
    r"(?<![\w.\-])(?P<option>--)?-?(?P<name>[A-Za-z_][\w.\-]*)(?P<by>[\"']?\s*[=:]\s*|(?(option)\s+(?!--)|(?!)))"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|(?:Bearer\s+|Basic\s+)?[^\s,;&\"'}\])]+)"
)
#: A value that is nothing but a secret, whatever its name.
_OPAQUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_\-+=.]{16,}")
#: A shorter value of a variable would hide ordinary words.
_SHORTEST = 6


def is_secret_name(name: str) -> bool:
    """Whether what stands under a name is secret: HF_TOKEN, wandbApiKey, db.password; not tokens, not eos_token."""
    return bool(_ALWAYS.search(_words(name)) or _VARIABLE.fullmatch(name))


def hides(name: str, value: str) -> bool:
    """Whether a text under a name is to be hidden; under a mere `token`, one that is no word, number or mark."""
    if not value or value == HIDDEN:
        return False
    if is_secret_name(name):
        return True
    words = _words(name)
    if not _PERHAPS.search(words) or _VOCABULARY.search(words):
        return False
    return len(value) >= _SHORTEST and bool(re.fullmatch(r"(?=.*\d)[\w.\-+/=~]*[A-Za-z][\w.\-+/=~]*", value))


def _words(name: str) -> str:
    return re.sub(r"[.\-\s]+", "_", _CAMEL.sub("_", name)).lower()


def known_secrets(
    *, environment: Mapping[str, str] | None = None, files: Iterable[str | os.PathLike[str]] | None = None
) -> tuple[str, ...]:
    """Return the values that variables and `.env` files hold under secret names, longest first.

    Args:
        environment: variables by name; None means this process's.
        files: files of NAME=value lines, missing ones are skipped; None means `.env` of the working folder and of the
            folders above it, and those that were read (`ablab.store.dotenv`).
    """
    if files is None:
        here = Path.cwd()
        read = filter(None, os.environ.get(FILES_VARIABLE, "").split(os.pathsep))
        files = [*(folder / ".env" for folder in (here, *here.parents)), *map(Path, read)]
    variables = dict(os.environ if environment is None else environment)
    found = {value for name, value in variables.items() if is_secret_name(name)}
    for file in files:
        # Everything in such a file is private by custom, but a word, a number or a path stands elsewhere too.
        found |= {value for name, value in read_env(file).items() if is_secret_name(name) or _OPAQUE.fullmatch(value)}
    return _usable(found)


def _usable(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the values that can be searched for in any text without hiding ordinary words, longest first."""
    return tuple(sorted((s for s in set(secrets) if len(s) >= _SHORTEST and s not in HIDDEN), key=len, reverse=True))


def read_env(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the variables of a `.env` file; a missing or unreadable file has none."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    variables = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            variables[name.strip()] = value.strip().strip("\"'")
    return variables


def redact(value: Any, *, secrets: Iterable[str] | None = None) -> Any:
    """Return `value` without secrets; dictionaries, lists, tuples and strings are walked, the rest is as it was.

    Args:
        value: anything that will be stored or shown.
        secrets: values to hide wherever they occur; None means `known_secrets()`.
    """
    known = known_secrets() if secrets is None else _usable(secrets)
    return _walk(value, known)


def scrub(path: str | os.PathLike[str]) -> bool:
    """Hide the values that are secret here in a log file, in place; return whether there were any.

    Its writers may go on: they append to the same file.
    """
    try:
        with Path(path).open("r+b") as file:
            data = file.read()
            clean = data
            for secret in known_secrets():
                clean = clean.replace(secret.encode(), HIDDEN.encode())
            if clean == data:
                return False
            file.seek(0)
            file.write(clean)
            file.truncate()
    except OSError:
        return False
    return True


def hide_known(text: str) -> str:
    """Return a text without the values that are secret here: for documents, whose own words no rule may touch."""
    for secret in known_secrets():
        text = text.replace(secret, HIDDEN)
    return text


def holds_secret(text: str, *, secrets: Iterable[str] | None = None) -> bool:
    """Whether a text holds a token of a known shape, or a value that is secret here; names alone do not count.

    Args:
        text: for example a script.
        secrets: values that are secret; None means `known_secrets()`.
    """
    known = known_secrets() if secrets is None else _usable(secrets)
    return _BOUNDED.search(text) is not None or any(secret in text for secret in known)


def find_secrets(value: Any, *, path: str = "") -> list[str]:
    """Return the places of secrets in a value, by name or shape: ["data.hub_token", "parameters.command[3]"]."""
    clean = redact(value, secrets=())
    if clean == value:
        return []
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), item, clean.get(key)) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{n}]", item, clean[n]) for n, item in enumerate(value)]
    else:
        return [path]
    found = []
    for place, item, cleaned in parts:
        if item != cleaned:
            found += [place] if isinstance(cleaned, str) else find_secrets(item, path=place) or [place]
    return found or [path]


def _walk(value: Any, known: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _clean(value, known)
    if isinstance(value, Mapping):
        names = ((key, _clean(key, known) if isinstance(key, str) else key) for key in value)
        return {shown: _entry((key, shown), value[key], known) for key, shown in names}
    if isinstance(value, list | tuple):
        items = [_walk(item, known) for item in _hide_arguments(value)]
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _entry(keys: tuple[Any, Any], value: Any, known: tuple[str, ...]) -> Any:
    """Return what stands under a name, as it is and as it is shown: hidden where either says that it is secret."""
    names = [key for key in keys if isinstance(key, str)]
    if isinstance(value, str) and any(hides(name, value) for name in names):
        return HIDDEN
    if value and not isinstance(value, bool | int | float | str) and any(map(is_secret_name, names)):
        return HIDDEN
    return _walk(value, known)


def _hide_arguments(items: Iterable[Any]) -> list[Any]:
    """Hide the item after `--token` and the like, so that a command line can be stored."""
    hidden: list[Any] = []
    option = ""
    for item in items:
        text = item if isinstance(item, str) else ""
        hidden.append(HIDDEN if option and text and not text.startswith("--") and hides(option, text) else item)
        option = text.lstrip("-") if text.startswith("--") and "=" not in text else ""
    return hidden


def _clean(text: str, known: tuple[str, ...]) -> str:
    for secret in known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _BOUNDED.sub(HIDDEN, text)
    if "://" in text:
        text = _LOGIN.sub(rf"\1:{HIDDEN}@", text)
    return _hide_assigned(text) if "=" in text or ":" in text or "--" in text else text


def _hide_assigned(text: str) -> str:
    """Hide what is assigned to a secret's name; after another name, look again at its value: `env: HF_TOKEN=...`."""
    parts: list[str] = []
    done = start = 0
    while match := _ASSIGNED.search(text, start):
        start = match.start("value")
        value = match["value"]
        quote = value[0] if value[0] in "\"'" else ""
        bare = value.strip(quote) if quote else value
        if not bare.startswith(HIDDEN[:-1]) and hides(match["name"], bare):
            parts += [text[done:start], quote, HIDDEN, quote]
            done = start = match.end()
    return "".join(parts) + text[done:]
