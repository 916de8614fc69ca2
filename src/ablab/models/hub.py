"""Loads models, tokenizers and image processors by hub name, from a folder, or small and random from a configuration.

One function for every class of transformers: what is loaded is complete, or an error says which weights were missing,
never a model that is partly random. Code from a hub repository runs only on `trust_remote_code`. What then trains is
`parts`' business. transformers takes seconds to import, so it is imported inside functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.models import ModelReference, model_references
from ablab.contract.order import Input
from ablab.contract.seeds import stream_seed
from ablab.models.experts import ENTRY as EXPERTS
from ablab.models.experts import restore_experts
from ablab.models.internvl import MODEL_TYPE as INTERNVL
from ablab.models.internvl import configuration as internvl_config
from ablab.models.internvl import is_internvl, load_connector, load_decoder, load_tower
from ablab.models.internvl import load_tokenizer as load_sentencepiece
from ablab.models.minicpm import is_minicpm, minicpm_config
from ablab.models.source import set_source
from ablab.models.two_towers import TOWERS, taken_out, tower_class
from ablab.models.vision.rotary2d import restore_rotary_2d
from ablab.store.hub import lock_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Kind = Literal["causal", "seq2seq", "vision", "text", "clip", "auto"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Artifact under which a stage leaves a model in transformers' format.
ARTIFACT = "artifacts/model"

#: transformers' class for each kind; vision, text, clip and auto are the bare model of the configuration.
_CLASSES: dict[Kind, str] = {"causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}

#: Parts that an InternVL checkpoint of the original format has.
_PARTS: dict[Kind, Callable[..., Any]] = {"causal": load_decoder, "vision": load_tower}

#: Entries of saved configurations that are transformers' own notes.
_NOTED = frozenset({"_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype"})

#: Section of a two-tower configuration (CLIP, SigLIP) that holds the one tower.
_SECTIONS: dict[Kind, str] = {"vision": "vision_config", "text": "text_config", "causal": "text_config"}


def load_model(
    reference: ModelReference | str,
    *,
    kind: Kind = "auto",
    dtype: str | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    role: str = "model",
    trust_remote_code: bool = False,
    revision: str | None = None,
    quantization: Literal["none", "4bit"] = "none",
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> PreTrainedModel:
    """Return a model of transformers on the CPU, in evaluation mode, complete.

    Args:
        reference: what to load; a text is a hub name or a folder.
        kind: causal and seq2seq have their language-model head; vision and text are one tower, taken out of a
            two-tower checkpoint where the name leads to one; clip and auto are the whole model without a head.
        dtype: fp32, bf16 or fp16; None takes the reference's (fp32 for a text).
        config: entries that replace those of the model's configuration.
        seed: draws the weights of a model from a configuration.
        role: name of the random stream, so that two models of one seed differ.
        trust_remote_code: run code of the repository; the reference's own field does too.
        revision: hub revision; None takes the reference's, else the lock file's.
        quantization: 4bit holds the matrices of the layers in NF4.
        inputs: finished runs, searched for the stage a reference names.
        revisions: revisions of the study's lock file.
        study_folder: where a relative folder starts.

    Raises:
        ConfigError: an unknown configuration entry, or code that is not trusted.
        DataError: no such model, or weights that are missing or do not fit.
    """
    if isinstance(reference, str):
        reference = ModelReference(
            name=reference, revision=revision, trust_remote_code=trust_remote_code, dtype=dtype or "fp32"
        )
    options: dict[str, Any] = {"dtype": DTYPES[dtype or reference.dtype]}
    if reference.attention != "auto":
        options["attn_implementation"] = reference.attention
    if reference.config is not None:
        # Without a source: numbers drawn again by another version would be others, so checkpoints hold them.
        model = _random(reference.config | dict(config or {}), kind, seed=seed, role=role, options=options)
    else:
        place = locate(reference, inputs=inputs, revisions=revisions, study_folder=study_folder, revision=revision)
        trusted = trust_remote_code or reference.trust_remote_code
        model = _stored(place, kind, config=config, trusted=trusted, options=options)
        set_source(model, place.text)
    restore_rotary_2d(model)
    if quantization == "4bit":
        from ablab.models.quantization import quantize

        quantize(model)
    model.eval()
    return model


def load_connector_into(
    model: nn.Module,
    reference: ModelReference,
    *,
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> None:
    """Put the connector of an InternVL checkpoint into a model's part `connector`, or into the one behind its pyramid.

    Raises:
        DataError: the checkpoint is no InternVL one, or its connector is of another shape.
    """
    place = locate(reference, inputs=inputs, revisions=revisions, study_folder=study_folder)
    with _explained(place, "connector"), _quiet():
        folder = _internvl(place)
    if folder is None:
        raise DataError(f"{place.text}: no InternVL checkpoint, so it has no connector to load", file=place.name)
    between: Any = getattr(model.connector, "inner", model.connector)
    own, given = between.state_dict(), load_connector(folder)
    wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
    if wrong:
        raise DataError(
            f"{place.text}: its connector does not fit, {wrong[0]} is {tuple(own[wrong[0]].shape)} here; widths and "
            "pixel shuffle must be the checkpoint's own (a pyramid that concatenates scales is wider)",
            file=place.name,
        )
    between.load_state_dict(given)


def load_tokenizer(
    reference: ModelReference | str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer that belongs to a model; arguments as `load_model`.

    Raises:
        ConfigError: the reference is a configuration, which has no tokenizer.
        DataError: no such tokenizer.
    """
    found: PreTrainedTokenizerBase = _beside(
        reference, _tokenizer_at, "tokenizer", revision, trust_remote_code, inputs, revisions, study_folder
    )
    return found


def _tokenizer_at(place: Place, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder or repository; that of an InternVL one without the code it names."""
    from transformers import AutoTokenizer

    config = _file(place, "config.json")
    if config is not None and is_internvl(config.parent) and (model := _file(place, "tokenizer.model")) is not None:
        _file(place, "tokenizer_config.json")
        return load_sentencepiece(model)
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place.name, revision=place.revision, **options)
    return found


def _file(place: Place, name: str) -> Path | None:
    """Return a file of a folder or repository; None where it has none of that name."""
    from transformers.utils.hub import cached_file

    found = cached_file(place.name, name, revision=place.revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def load_image_processor(
    reference: ModelReference | str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> Any:
    """Return the image processor of a tower, in transformers' Pillow implementation; arguments as `load_model`.

    Raises:
        ConfigError: the reference is a configuration, which has no image processor.
        DataError: no such image processor.
    """
    return _beside(
        reference, _processor_at, "image processor", revision, trust_remote_code, inputs, revisions, study_folder
    )


def _processor_at(place: Place, **options: Any) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(place.name, revision=place.revision, backend="pil", **options)


def load_config(reference: ModelReference | str, **options: Any) -> PreTrainedConfig:
    """Return the configuration of a model without its weights; options as `locate`."""
    if isinstance(reference, str):
        reference = ModelReference(name=reference)
    if reference.config is not None:
        return _config_of(reference.config)
    place = locate(reference, **options)
    with _explained(place, "configuration"):
        return _config_at(place, trusted=reference.trust_remote_code)


def _config_at(place: Place, *, trusted: bool) -> PreTrainedConfig:
    """Return the configuration that a folder or repository holds; of MiniCPM that of the class which computes it."""
    from transformers import AutoConfig, PretrainedConfig

    raw, _ = PretrainedConfig.get_config_dict(place.name, revision=place.revision)
    if is_minicpm(raw):
        return minicpm_config(raw)
    if raw.get("model_type") == INTERNVL:
        return internvl_config(raw)
    found: PreTrainedConfig = AutoConfig.from_pretrained(place.name, revision=place.revision, trust_remote_code=trusted)
    return found


class Place:
    """A model's name or folder and its revision."""

    def __init__(self, name: str, revision: str | None = None, text: str | None = None) -> None:
        self.name, self.revision = name, revision
        self.text = text or (f"{name}@{revision}" if revision else name)


def locate(
    reference: ModelReference,
    *,
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
    revision: str | None = None,
) -> Place:
    """Return where the files of a reference are.

    Raises:
        ConfigError: the stage it names is not among the inputs, or left no model.
        DataError: the folder does not exist.
    """
    if reference.stage is not None:
        given = list(inputs)
        found = [each for each in given if reference.stage in (each.stage, each.reference.partition("@")[0])]
        folder = Path(found[0].path, ARTIFACT) if found else None
        if folder is None or not folder.is_dir():
            names = ", ".join(each.stage for each in given if Path(each.path, ARTIFACT).is_dir()) or "none"
            raise ConfigError(
                f"no model of stage {reference.stage!r} among the inputs; stages that left one: {names}; name the "
                "stage in `needs`"
            )
        return Place(str(folder), text=f"stage {found[0].stage} ({found[0].key})")
    assert reference.name is not None
    if reference.is_folder:
        folder = Path(study_folder or ".", Path(reference.name).expanduser()).resolve()
        if not (folder / "config.json").is_file():
            raise DataError(f"{reference.name}: no model there (looked for {folder / 'config.json'})", file=str(folder))
        return Place(str(folder), text=reference.name)
    (hub,) = model_references(reference, path="")
    wanted = revision or reference.revision or (revisions or {}).get(lock_name(hub))
    return Place(reference.name, wanted)


def _random(
    config: Mapping[str, Any], kind: Kind, *, seed: int, role: str, options: Mapping[str, Any]
) -> PreTrainedModel:
    """Build a model from its configuration, drawn from the stream `initialisation/<role>` of the seed."""
    made = _section(_config_of(config), kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, f"initialisation/{role}"))
        try:
            model = _from_config(made, kind, options)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{config['model_type']} cannot be built as a {kind} model: {_first_line(error)}"
            ) from error
    return model


def _config_of(config: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the typed configuration of a mapping; an entry the architecture does not know is an error."""
    from transformers import CONFIG_MAPPING, AutoConfig, GenerationConfig

    name = config["model_type"]
    if name not in CONFIG_MAPPING:
        near = difflib.get_close_matches(name, list(CONFIG_MAPPING.keys()), n=3)
        raise ConfigError(f"unknown model_type {name!r}; nearest: {', '.join(near) or 'none'}")
    kind = CONFIG_MAPPING[name]
    known = {
        *kind().to_dict(),
        *getattr(kind, "__dataclass_fields__", ()),
        *kind.attribute_map,
        *GenerationConfig().to_dict(),
    }
    for entry in config:
        # What a saved configuration notes beside the architecture's own entries.
        if entry not in known and entry not in _NOTED and not entry.startswith("ablab_"):
            near = difflib.get_close_matches(entry, sorted(known), n=3)
            raise ConfigError(f"{name} has no configuration entry {entry!r}; nearest: {', '.join(near) or 'none'}")
    try:
        return AutoConfig.for_model(**config)
    except Exception as error:
        raise ConfigError(f"configuration of {name}: {_first_line(error)}") from error


def _stored(
    place: Place, kind: Kind, *, config: Mapping[str, Any] | None, trusted: bool, options: Mapping[str, Any]
) -> PreTrainedModel:
    with _explained(place, "model"), _quiet():
        if kind in _PARTS and not config and (folder := _internvl(place)) is not None:
            part: PreTrainedModel = _PARTS[kind](folder, dtype=options["dtype"])
            return part
        shared = {"revision": place.revision, "trust_remote_code": trusted}
        whole = _config_at(place, trusted=trusted)
        made = _section(whole, kind)
        for entry, value in (config or {}).items():
            setattr(made, entry, value)
        if getattr(made, EXPERTS, None) is not None:
            built = _from_config(made, kind, options)
            restore_experts(built, _snapshot(place))
            return built
        shared |= {"output_loading_info": True, **options}
        model, report = (tower_class(made) or _auto(kind)).from_pretrained(place.name, config=made, **shared)
        if report["missing_keys"] and made is not whole and kind in TOWERS:
            model, report = taken_out(place.name, kind, whole, shared)
    wrong = [*report["missing_keys"], *(str(name) for name, *_ in report["mismatched_keys"])]
    if wrong:
        raise DataError(
            f"{place.text}: {len(wrong)} weights of {type(model).__name__} are missing or of another shape "
            f"({', '.join(sorted(wrong)[:3])}, ...); it is not a complete {kind} model",
            file=place.name,
            missing=sorted(wrong)[:20],
        )
    return model  # type: ignore[no-any-return]


def _snapshot(place: Place) -> Path:
    """Return the folder of a model, downloaded where it is the hub's."""
    if Path(place.name).is_dir():
        return Path(place.name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(place.name, revision=place.revision, allow_patterns=["*.json", "*.safetensors"]))


def _internvl(place: Place) -> Path | None:
    """Return the folder of a checkpoint in InternVL's own format, downloaded where it is the hub's; None for others."""
    folder = Path(place.name)
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download, snapshot_download

        folder = Path(hf_hub_download(place.name, "config.json", revision=place.revision)).parent
        if is_internvl(folder):
            wanted = ["*.json", "*.safetensors"]
            folder = Path(snapshot_download(place.name, revision=place.revision, allow_patterns=wanted))
    return folder if is_internvl(folder) else None


def _auto(kind: Kind) -> Any:
    import transformers

    return getattr(transformers, _CLASSES.get(kind, "AutoModel"))


def _from_config(config: PreTrainedConfig, kind: Kind, options: Mapping[str, Any]) -> PreTrainedModel:
    tower = tower_class(config)
    model: PreTrainedModel = (
        _auto(kind).from_config(config, **options) if tower is None else tower._from_config(config, **options)
    )
    return model


def _section(config: PreTrainedConfig, kind: Kind) -> PreTrainedConfig:
    """Return the configuration of the one tower where there are several."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if kind == "causal" and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return config
    section = getattr(config, _SECTIONS.get(kind, ""), None)
    return config if section is None else section


def _beside(
    reference: ModelReference | str,
    load: Callable[..., Any],
    what: str,
    revision: str | None,
    trusted: bool,
    inputs: Iterable[Input],
    revisions: Mapping[str, str] | None,
    study_folder: str | Path | None,
) -> Any:
    """Load what lies beside a model's weights, from its place."""
    if isinstance(reference, str):
        reference = ModelReference(name=reference)
    if reference.config is not None:
        raise ConfigError(f"a model from a configuration ({reference.label}) has no {what}; name one")
    place = locate(reference, inputs=inputs, revisions=revisions, study_folder=study_folder, revision=revision)
    trusted = trusted or reference.trust_remote_code
    with _explained(place, what), _quiet():
        return load(place, trust_remote_code=trusted)


class _explained:
    """Turn what transformers raises for a name that leads nowhere into an error a user can act on."""

    def __init__(self, place: Place, what: str) -> None:
        self._place, self._what = place, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ConfigError | DataError) or not isinstance(error, Exception):
            return
        said, place = _first_line(error), self._place
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{place.text} brings code of its own, which runs only when the study says trust_remote_code: true"
            ) from error
        if isinstance(error, ImportError):
            raise DataError(
                f"{place.text}: its {self._what} cannot be loaded here: {said}; where the repository brings code of "
                "its own, that may be of another time than the transformers installed",
                file=place.name,
            ) from error
        if isinstance(error, OSError | ValueError | KeyError | RuntimeError):
            raise DataError(
                f"no {self._what} {place.text}: {said}; is the name right, is the hub within reach (`ablab fetch` "
                "downloads before a run), does it need a licence and a token?",
                file=place.name,
            ) from error


class _quiet:
    """Keep transformers' bars and notices out of a worker's log; what matters here is raised."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: Any) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
