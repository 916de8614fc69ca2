"""No secret passes; ordinary content passes unchanged."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.store.redact import HIDDEN, find_secrets, is_secret_name, known_secrets, read_env, redact

LETTERS = string.ascii_letters + string.digits
OPAQUE = st.text(LETTERS, min_size=24, max_size=40)
SECRET = st.text(LETTERS + "-_/+=.", min_size=8, max_size=40).filter(lambda s: s not in HIDDEN)
NAMES = [
    "HF_TOKEN", "WANDB_API_KEY", "wandbApiKey", "db.password", "AWS_SECRET_ACCESS_KEY", "client_secret", "PGPASSWORD",
    "OPENAI_KEY", "access_token", "TOKEN_HF", "authorization", "api-key", "GOOGLE_APPLICATION_CREDENTIALS", "DB_PASS",
]  # fmt: skip
PLAIN = [
    "eos_token", "pad_token", "max_tokens", "tokens", "tokenizer", "TOKENIZERS_PARALLELISM", "query_key", "PWD", "key",
    "passes", "secretary", "monkey", "token_ids", "path", "forward_pass", "num_tokens", "keys",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert redact({name: "x"}, secrets=()) == {name: HIDDEN}
    assert redact({name: {"user": "u", "value": "v"}}, secrets=()) == {name: HIDDEN}


@pytest.mark.parametrize("name", PLAIN)
def test_names_that_only_resemble_them(name: str) -> None:
    assert not is_secret_name(name)
    content = {name: "<|endoftext|>", "n": {name: 5, "list": [name, f"{name}: 3", f"--{name}", "3"]}}
    assert redact(content, secrets=()) == content


def test_a_token_may_be_a_word_of_a_language() -> None:
    for word in ("the", "Ġinternationalization", "12", "<s>", "##ing", "a b"):
        assert redact({"token": word}, secrets=()) == {"token": word}
    assert redact({"token": "a8Kd93kdLs0"}, secrets=()) == {"token": HIDDEN}


@settings(deadline=None)
@given(
    shape=st.sampled_from(["hf_{}", "sk-proj-1{}", "ghp_{}", "github_pat_{}", "xoxb-{}", "glpat-{}", "wandb_v1_{}"]),
    body=OPAQUE,
    before=st.sampled_from(["", "see ", "x=", "(", '"', "https://h/?q=", "\n"]),
    after=st.sampled_from(["", " and", ")", '"', "\n", ","]),
)
def test_known_shapes_are_hidden_wherever_they_stand(shape: str, body: str, before: str, after: str) -> None:
    secret = shape.format(body)
    out = redact({"log": [f"{before}{secret}{after}"]}, secrets=())["log"][0]
    assert body not in out and HIDDEN in out and out.startswith(before) and out.endswith(after)


@pytest.mark.parametrize("text", ["AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK"])
def test_other_shapes(text: str) -> None:
    assert redact(f"id {text}", secrets=()) == f"id {HIDDEN}"


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        "https://discord.com/api/webhooks/123456789012345678/abc_DEF-ghiJKLmnoPQRstu",
    ],
)
def test_addresses_of_webhooks_keep_their_host_alone(address: str) -> None:
    out = redact(f"posting to {address}, done", secrets=())
    assert out.startswith("posting to https://") and out.endswith(f"{HIDDEN}, done")
    assert address.rpartition("/")[2] not in out


def test_private_keys_are_hidden_whole_even_when_cut() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n"
    assert redact(f"a\n{key}-----END RSA PRIVATE KEY-----\nb", secrets=()) == f"a\n{HIDDEN}\nb"
    assert redact(key, secrets=()) == HIDDEN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HF_TOKEN=abc python x.py", f"HF_TOKEN={HIDDEN} python x.py"),
        ("curl -H 'Authorization: Bearer abc.def' x", f"curl -H 'Authorization: {HIDDEN}' x"),
        ("git clone https://me:pw1@host/x.git", f"git clone https://me:{HIDDEN}@host/x.git"),
        ("train --hub-token abc1 --lr 3e-4", f"train --hub-token {HIDDEN} --lr 3e-4"),
        ('{"password": "a b", "k": 1}', f'{{"password": "{HIDDEN}", "k": 1}}'),
        ("api_key: 'abc'\nlr: 1", f"api_key: '{HIDDEN}'\nlr: 1"),
        ("env: HF_TOKEN=abc, x: y: DB_PASS: 'z'", f"env: HF_TOKEN={HIDDEN}, x: y: DB_PASS: '{HIDDEN}'"),
        ("the password was wrong", "the password was wrong"),
        ("token: 5, tokens: 12345678", "token: 5, tokens: 12345678"),
        ("https://host:8080/x?a=b", "https://host:8080/x?a=b"),
    ],
)
def test_assignments_in_text(text: str, expected: str) -> None:
    assert redact(text, secrets=()) == expected


def test_a_command_line_is_hidden_item_by_item() -> None:
    items = ["run", "--password", "abc", "--token=a1b2c3d4", "--verbose", "--api-key", "--lr", "1"]
    hidden = ["run", "--password", HIDDEN, f"--token={HIDDEN}", "--verbose", "--api-key", "--lr", "1"]
    assert redact(items, secrets=()) == hidden and redact(tuple(items), secrets=()) == tuple(hidden)


def test_values_of_the_environment_and_of_env_files_are_hidden_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "# note\nexport MY_TOKEN='from-a-file'\nDEBUG=1\nODD=long-enough-2b-private\nDATA=/long/path/to/the/data1\nx\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_PASSWORD", "correct horse")
    monkeypatch.setenv("SHORT_SECRET", "no")
    assert read_env(".env")["MY_TOKEN"] == "from-a-file" and read_env("absent") == {}
    text = "correct horse, from-a-file, long-enough-2b-private, no 1 /long/path/to/the/data1"
    hidden = f"{HIDDEN}, {HIDDEN}, {HIDDEN}, no 1 /long/path/to/the/data1"
    assert redact({"a": (text,)}) == {"a": (hidden,)}
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert redact(text) == hidden
    assert known_secrets(environment={"A": "b"}, files=()) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def plant(value: Any, secret: str, data: st.DataObject) -> Any:
    """Put a secret into random places of a value."""
    if isinstance(value, str):
        at = data.draw(st.integers(0, len(value)))
        return value[:at] + secret + value[at:]
    if isinstance(value, list):
        return [plant(item, secret, data) for item in value]
    if isinstance(value, dict):
        return {key + secret: plant(item, secret, data) for key, item in value.items()}
    return value


@settings(deadline=None, max_examples=60)
@given(value=JSON, secret=SECRET, data=st.data())
def test_a_known_secret_never_survives_anywhere(value: Any, secret: str, data: st.DataObject) -> None:
    planted = plant({"x": value}, secret, data)
    out = redact(planted, secrets=[secret])

    def strings(item: Any) -> list[str]:
        if isinstance(item, str):
            return [item]
        if isinstance(item, list):
            return [text for part in item for text in strings(part)]
        if isinstance(item, dict):
            return [text for key, part in item.items() for text in (key, *strings(part))]
        return []

    assert all(secret not in text for text in strings(out))
    assert redact(out, secrets=[secret]) == out


def test_a_name_counts_as_it_is_shown_too() -> None:
    secret = "00000000"
    assert redact({f"HFTOKEN{secret}": f"{secret}0"}, secrets=[secret]) == {"HFTOKEN[redacted]": "[redacted]"}


@settings(deadline=None, max_examples=60)
@given(value=JSON)
def test_redacting_twice_changes_nothing_more_and_keeps_the_type(value: Any) -> None:
    once = redact(value, secrets=())
    assert redact(once, secrets=()) == once and type(once) is type(value)
    assert not isinstance(value, int | float) or once == value


def test_places_of_secrets_are_found() -> None:
    content = {"data": {"hub_token": "x", "n": 3}, "command": ["a", f"hf_{'a1' * 12}"], "private_key": {"a": "b"}}
    assert find_secrets(content) == ["data.hub_token", "command[1]", "private_key"]
    assert find_secrets({"eos_token": "<s>", "steps": [1, 2]}) == [] and find_secrets("plain") == []


def test_long_text_takes_linear_time() -> None:
    blob = "A" * 200_000 + ": " + "b-" * 100_000 + "sk-" + "a" * 100_000
    assert redact(blob, secrets=()) == blob


def test_numbers_and_unknown_objects_pass_as_they_are() -> None:
    marker = object()
    content = {"token": 5, "password": None, "secret": 3.5, "o": marker}
    assert redact(content, secrets=()) == content
    assert json.dumps(redact({"a": [1, 2.5, None, True]}, secrets=())) == '{"a": [1, 2.5, null, true]}'
