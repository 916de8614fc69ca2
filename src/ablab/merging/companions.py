"""What stands beside the weights of a model: configuration, tokenizer, processors; and a record of the merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ablab.contract.merge import Merge
from ablab.merging.shards import INDEX
from ablab.merging.sources import ADAPTER_CONFIG, CONFIG
from ablab.store.files import write_json

#: Files that belong to a model whatever its weights; a model card would describe another model.
_ENDINGS = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".vocab"})
_NOT = frozenset({INDEX, ADAPTER_CONFIG, "trainer_state.json", "training_args.json", "merge.json", "manifest.json"})
_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
#: Larger files are no configuration.
_MOST = 200_000_000
RECORD = "merge.json"


def copy_companions(source: Path, target: Path, *, dtype: str | None) -> list[str]:
    """Copy what belongs to a model from its folder, and return the names; a new type is told to its configuration."""
    if source.is_file():
        return []
    copied = []
    for path in sorted(source.iterdir()):
        wanted = path.suffix in _ENDINGS and path.name not in _NOT and not path.name.startswith(".")
        if wanted and path.is_file() and path.stat().st_size <= _MOST and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
            copied.append(path.name)
    chat = source / "chat_templates"
    if chat.is_dir():
        shutil.copytree(chat, target / chat.name)
    if dtype is not None and CONFIG in copied:
        config = json.loads((target / CONFIG).read_text(encoding="utf-8"))
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = _TORCH[dtype]
        write_json(target / CONFIG, config, sync=False)
    return copied


def record(target: Path, settings: Merge, *, seed: int) -> None:
    """Write what was merged how beside the result."""
    write_json(
        target / RECORD,
        {"format": 1, "seed": seed, **settings.model_dump(mode="json", exclude={"shard_bytes"})},
        sync=False,
    )
