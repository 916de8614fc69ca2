from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ablab.data.division import Division
from ablab.data.documents import Document
from ablab.data.encoding import Encoded, encode_documents
from ablab.data.tokenizers import ByteTokenizer, gpt2_tokenizer

FACE = "\U0001f600"
DOCUMENTS = [Document(f"Document {i} says: {'word ' * (i % 50)}ü {FACE * (i % 2)}", "f", i) for i in range(400)]


def plain(found: Iterator[Encoded]) -> list[tuple[str, list[int], int, int]]:
    return [(e.split, e.tokens.tolist(), e.bytes, e.words) for e in found]


def test_the_result_does_not_depend_on_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.data.encoding._BATCH", 2000)
    tokenizer = gpt2_tokenizer()
    division = Division(validation=0.2, test=0.2)
    alone = plain(encode_documents(DOCUMENTS, tokenizer, division=division, workers=1))
    several = plain(encode_documents(DOCUMENTS, tokenizer, division=division, workers=2, alone=0))
    assert several == alone
    assert {split for split, *_ in alone} == {"train", "val", "test"}


def test_what_is_counted_is_the_text() -> None:
    tokenizer = ByteTokenizer()
    for document, found in zip(DOCUMENTS, encode_documents(DOCUMENTS, tokenizer, split="test"), strict=True):
        assert found.split == "test"
        assert found.tokens[-1] == tokenizer.end_of_text
        assert bytes(found.tokens[:-1].astype(np.uint8)) == document.text.encode()
        assert found.bytes == len(document.text.encode())
        assert found.words == len(document.text.split())


def test_reading_keeps_only_a_few_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.data.encoding._BATCH", 1000)
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for i in range(10_000):
            read += 1
            yield Document("x" * 1000, "f", i)

    stream = encode_documents(documents(), ByteTokenizer(), workers=2, alone=0)
    for _ in range(3):
        next(stream)
    assert read < 20
    stream.close()  # type: ignore[attr-defined]


def test_an_error_of_the_reader_ends_the_processes() -> None:
    def documents() -> Iterator[Document]:
        for i in range(5000):
            yield Document("some text " * 100, "f", i)
        raise ValueError("row 5001 is broken")

    with pytest.raises(ValueError, match="row 5001"):
        for _ in encode_documents(documents(), ByteTokenizer(), workers=2, alone=0):
            pass


def test_processes_end_with_their_parent_even_when_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import itertools, multiprocessing\n"
        "from ablab.data.documents import Document\n"
        "from ablab.data.encoding import encode_documents\n"
        "from ablab.data.tokenizers import ByteTokenizer\n"
        "if __name__ == '__main__':\n"
        "    endless = (Document('some text ' * 1000, 'f', i) for i in itertools.count())\n"
        "    for i, _ in enumerate(encode_documents(endless, ByteTokenizer(), workers=2, alone=0)):\n"
        "        if i == 0:\n"
        "            print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert children
    waited = time.monotonic() + 30
    while any(is_running(pid) for pid in children) and time.monotonic() < waited:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in children)


def test_a_stop_of_the_whole_group_is_clean(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import itertools, signal, sys\n"
        "from ablab.data.documents import Document\n"
        "from ablab.data.encoding import encode_documents\n"
        "from ablab.data.tokenizers import ByteTokenizer\n"
        "if __name__ == '__main__':\n"
        "    asked = []\n"
        "    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))\n"
        "    endless = (Document('some text ' * 1000, 'f', i) for i in itertools.count())\n"
        "    stream = encode_documents(endless, ByteTokenizer(), workers=2, alone=0)\n"
        "    for i, _ in enumerate(stream):\n"
        "        if i == 0:\n"
        "            print('started', flush=True)\n"
        "        if asked:\n"
        "            stream.close()\n"
        "            sys.exit(3)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    os.killpg(parent.pid, signal.SIGTERM)
    _, errors = parent.communicate(timeout=60)
    assert (parent.returncode, errors) == (3, "")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
