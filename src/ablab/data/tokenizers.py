"""Text to token ids and back: GPT-2's byte-level BPE, a BPE trained on the train split, raw bytes.

All three are byte-level: every token stands for a fixed number of UTF-8 bytes, so any text round-trips and bits per
byte are exact over any set of tokens. The end-of-text token is no text: it has 0 bytes, no text ever becomes it
("<|endoftext|>" in a document is encoded as ordinary characters), and it decodes to nothing.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ablab import bundled
from ablab.contract.failure import ConfigError, DataError
from ablab.data.pretokens import gpt2_pretokens, pieces

if TYPE_CHECKING:
    import tokenizers as library

END_OF_TEXT = "<|endoftext|>"
Ids = npt.NDArray[np.uint32]

#: Characters handled at once, so that memory stays bounded for a document of any length.
_PIECE, _SLOW_PIECE = 1 << 18, 1 << 11
#: Words remembered by a process, and the longest that is: together below about 200 MB.
_WORDS, _WORD_LENGTH = 500_000, 64


class Tokenizer(Protocol):
    """What every tokenizer does."""

    name: str
    vocabulary: int
    end_of_text: int

    def encode(self, text: str) -> Ids:
        """Return the token ids of a text, uint32 of shape (tokens,), without an end-of-text token."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the UTF-8 bytes of tokens, exactly; end-of-text tokens are left out."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens; bytes that are no whole character become U+FFFD."""
        ...

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of text each token stands for, shape (vocabulary,); 0 for end-of-text."""
        ...

    def to_json(self) -> str:
        """Return the tokenizer as text that `tokenizer_from_json` reads."""
        ...


class ByteTokenizer:
    """Raw UTF-8 bytes; token 256 is end-of-text."""

    name = "bytes"
    vocabulary = 257
    end_of_text = 256

    def encode(self, text: str) -> Ids:
        """Return the bytes of a text (see `Tokenizer`)."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of tokens (see `Tokenizer`)."""
        return bytes(i for i in ids if i != self.end_of_text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens (see `Tokenizer`)."""
        return self.decode_bytes(ids).decode(errors="replace")

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of each token (see `Tokenizer`)."""
        return np.array([1] * 256 + [0], dtype=np.int64)

    def to_json(self) -> str:
        """Return the tokenizer as JSON."""
        return json.dumps({"ablab": "bytes"})


class _Words(dict[str, bytes]):
    """Ids of words already seen, as bytes of uint32."""

    def __init__(self, base: library.Tokenizer) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, word: str) -> bytes:
        found = np.array(self._base.encode(word, add_special_tokens=False).ids, dtype=np.uint32).tobytes()
        if len(word) <= _WORD_LENGTH:
            if len(self) >= _WORDS:
                self.clear()
            self[word] = found
        return found


class BytePairTokenizer:
    """A byte-level BPE with GPT-2's word split, around a tokenizer of the `tokenizers` library.

    Its ids are those of the library; words are encoded once and looked up after that, which is several times faster
    on natural text.

    Args:
        base: tokenizer whose last token is end-of-text.
        name: what the study calls it.
    """

    def __init__(self, base: library.Tokenizer, *, name: str) -> None:
        # Otherwise the characters "<|endoftext|>" inside a document would end it.
        base.encode_special_tokens = True
        self.name = name
        self.vocabulary: int = base.get_vocab_size(with_added_tokens=True)
        end_of_text = base.token_to_id(END_OF_TEXT)
        if end_of_text is None:
            raise ConfigError(f"the tokenizer {name} has no token {END_OF_TEXT}")
        self.end_of_text: int = end_of_text
        self._base = base
        self._words = _Words(base)
        self._table: list[bytes] | None = None

    def encode(self, text: str) -> Ids:
        """Return the token ids of a text (see `Tokenizer`)."""
        patterns = gpt2_pretokens()
        parts: list[bytes] = []
        for piece in pieces(text, _PIECE):
            if patterns.known(piece):
                parts.extend(map(self._words.__getitem__, patterns.words.findall(piece)))
            else:
                parts.extend(self._slow(piece))
        return np.frombuffer(b"".join(parts), dtype=np.uint32)

    def _slow(self, text: str) -> Iterable[bytes]:
        """Encode text with characters our word split does not know, by the library's own split."""
        patterns = gpt2_pretokens()
        for piece in pieces(text, _SLOW_PIECE):
            if patterns.known(piece):
                yield from map(self._words.__getitem__, patterns.words.findall(piece))
            else:
                yield np.array(self._base.encode(piece, add_special_tokens=False).ids, dtype=np.uint32).tobytes()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of tokens (see `Tokenizer`)."""
        table = self._bytes_of()
        return b"".join(table[int(i)] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens (see `Tokenizer`)."""
        return self.decode_bytes(ids).decode(errors="replace")

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of each token (see `Tokenizer`)."""
        return np.array([len(token) for token in self._bytes_of()], dtype=np.int64)

    def to_json(self) -> str:
        """Return the tokenizer in the format of the `tokenizers` library (tokenizer.json)."""
        return str(self._base.to_str(pretty=False))

    def _bytes_of(self) -> list[bytes]:
        if self._table is None:
            byte_of = {character: byte for byte, character in enumerate(byte_characters())}
            table = [b""] * self.vocabulary
            for token, i in self._base.get_vocab(with_added_tokens=True).items():
                if i != self.end_of_text:
                    table[i] = bytes(byte_of[character] for character in token)
            self._table = table
        return self._table

    def __getstate__(self) -> dict[str, Any]:
        return {"json": self.to_json(), "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import tokenizers

        self.__init__(tokenizers.Tokenizer.from_str(state["json"]), name=state["name"])  # type: ignore[misc]


def byte_characters() -> list[str]:
    """Return the character that stands for each of the 256 bytes in a byte-level vocabulary (GPT-2, 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    kept = set(printable)
    return [chr(byte) if byte in kept else chr(next(shifted)) for byte in range(256)]


def gpt2_tokenizer() -> BytePairTokenizer:
    """Return GPT-2's tokenizer (50,257 tokens, the last of them end-of-text) from the bundled vocabulary.

    Raises:
        DataError: a bundled file is missing or changed.
    """
    bundled.verify("gpt2")
    folder = bundled.path("gpt2")
    vocabulary = json.loads(lzma.decompress((folder / "encoder.json.xz").read_bytes()))
    lines = lzma.decompress((folder / "vocab.bpe.xz").read_bytes()).decode().splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines[1:] if line)]
    return BytePairTokenizer(_byte_level(vocabulary, merges), name="gpt2")


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, threads: int | None = None) -> BytePairTokenizer:
    """Return a byte-level BPE trained on texts; the same texts in the same order always give the same tokenizer.

    Args:
        texts: the train split, streamed; the trainer holds counts of words, not the text.
        vocabulary: tokens, end-of-text included; fewer come out when the text has fewer pairs to merge.
        threads: threads of the trainer; the first caller in a process decides. None takes the cores.

    Raises:
        DataError: the texts hold no word.
    """
    if threads is not None:
        # The library's thread pool reads this when it starts and has no other setting.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    import tokenizers
    from tokenizers import pre_tokenizers, trainers

    base = _byte_level({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    base.train_from_iterator(iter(texts), trainer=trainer)
    if base.get_vocab_size() < 256:
        raise DataError("the train split holds no text to train a tokenizer on", file="train", row=None)
    base.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return BytePairTokenizer(base, name="bpe")


def _byte_level(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> library.Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    base = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    if END_OF_TEXT in vocabulary:
        base.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return base


def tokenizer_from_json(text: str, *, name: str, source: str | os.PathLike[str] = "tokenizer.json") -> Tokenizer:
    """Return the tokenizer that `to_json` wrote.

    Raises:
        DataError: the text is no tokenizer; `source` names it in the message.
    """
    if name == "bytes":
        return ByteTokenizer()
    import tokenizers

    try:
        base = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{source}: not a tokenizer ({error}); prepare again", file=str(source), row=None) from error
    return BytePairTokenizer(base, name=name)


def load_tokenizer(path: str | os.PathLike[str], *, name: str) -> Tokenizer:
    """Read a tokenizer file of a prepared corpus.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare again", file=str(path), row=None) from error
    return tokenizer_from_json(text, name=name, source=path)
