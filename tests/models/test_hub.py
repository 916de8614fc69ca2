import json

import pytest
import torch
from pydantic import ValidationError

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.models import ModelReference, model_references
from ablab.contract.order import Input
from ablab.models.hub import load_config, load_model, load_tokenizer
from ablab.models.source import sources


def test_a_reference_has_one_origin_and_a_text_is_a_name():
    assert ModelReference.model_validate("owner/name") == ModelReference(name="owner/name")
    assert ModelReference(name="./here").is_folder and not ModelReference(name="owner/name").is_folder
    for wrong in ({}, {"name": "a/b", "stage": "llm"}, {"config": {"hidden_size": 3}}, {"stage": "x", "revision": "y"}):
        with pytest.raises(ValidationError):
            ModelReference.model_validate(wrong)


def test_what_a_reference_reads_enters_the_key():
    (hub,) = model_references(ModelReference(name="a/b", revision="r", gated=True), path="model.llm")
    assert (hub.kind, hub.name, hub.revision, hub.gated, hub.repository) == ("hub", "a/b", "r", True, "model")
    (folder,) = model_references(ModelReference(name="../b"), path="model.llm")
    assert folder.kind == "folder"
    assert model_references(ModelReference(config={"model_type": "llama"}), path="") == []
    assert model_references(None, path="") == []


def test_a_configuration_is_drawn_from_its_seed_and_role(build):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = build("llama", kind="causal"), build("llama", kind="causal")
    assert torch.equal(before, torch.random.get_rng_state())
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    for other in (build("llama", kind="causal", seed=2), build("llama", kind="causal", role="other")):
        assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_a_mistyped_configuration_entry_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'hiden_size'; nearest: hidden_size"):
        load_model(ModelReference(config={"model_type": "llama", "hiden_size": 32}))
    with pytest.raises(ConfigError, match=r"unknown model_type 'lama'"):
        load_model(ModelReference(config={"model_type": "lama"}))


def test_one_tower_is_taken_out_of_a_two_tower_checkpoint(saved, build):
    whole = load_model(str(saved("clip")), kind="clip")
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        tower = load_model(str(saved("clip")), kind="vision")
        torch.testing.assert_close(
            tower(pixels).last_hidden_state, whole.vision_model(pixels).last_hidden_state, rtol=0, atol=0
        )
        text = load_model(str(saved("clip")), kind="text")
        ids = torch.randint(3, 99, (2, 5))
        torch.testing.assert_close(text(ids).last_hidden_state, whole.text_model(ids).last_hidden_state)


@pytest.mark.parametrize("name", ["siglip", "chinese_clip", "align"])
def test_towers_without_a_general_name_are_built_and_taken_out(name: str, tmp_path):
    """transformers builds the text of SigLIP only by its own class; Chinese-CLIP's looks for other names of weights."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "max_position_embeddings": 16, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    if name == "align":
        vision = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.2}
    config = {"model_type": name, "text_config": text, "vision_config": vision}
    whole = load_model(ModelReference(config=config), seed=3)
    whole.save_pretrained(tmp_path)
    reference = ModelReference(config=config)
    for kind, part in (("text", whole.text_model), ("vision", whole.vision_model)):
        taken, drawn = load_model(str(tmp_path), kind=kind), load_model(reference, kind=kind)
        shapes = {entry.shape for entry in drawn.state_dict().values()}
        assert type(taken) is type(drawn) and shapes == {entry.shape for entry in taken.state_dict().values()}
        given = {"pixel_values": torch.randn(2, 3, 32, 32)}
        if kind == "text":
            given = {"input_ids": torch.randint(3, 99, (2, 5))}
        with torch.no_grad():
            torch.testing.assert_close(taken(**given)[0], part(**given)[0])
        assert not taken.training


def test_a_checkpoint_without_some_weights_is_an_error_not_a_partly_random_model(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    source = saved("llama")
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights of LlamaForCausalLM are missing.*layers\.2\.mlp\.up_proj"):
        load_model(str(tmp_path), kind="causal")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"\./nowhere: no model there"):
        load_model(ModelReference(name="./nowhere"), study_folder=tmp_path)


def test_code_of_a_repository_runs_only_when_the_study_says_so(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}})
    )
    (tmp_path / "own.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nimport torch\n"
        "from transformers import PretrainedConfig, PreTrainedModel\n"
        "class C(PretrainedConfig):\n    model_type = 'own'\n"
        "class M(PreTrainedModel):\n    config_class = C\n"
        "    def __init__(self, config):\n        super().__init__(config)\n"
        "        self.one = torch.nn.Linear(1, 1)\n        self.post_init()\n"
    )
    from safetensors.torch import save_file

    save_file(
        {"one.weight": torch.ones(1, 1), "one.bias": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ConfigError, match=r"only when the study says trust_remote_code: true"):
        load_model(str(tmp_path))
    assert not marker.exists()
    model = load_model(str(tmp_path), trust_remote_code=True)
    assert type(model).__name__ == "M" and marker.exists()


def test_a_model_of_another_stage_is_found_among_the_inputs(saved, tmp_path):
    import shutil

    shutil.copytree(saved("llama"), tmp_path / "artifacts" / "model")
    given = Input(reference="llm", stage="llm", kind="train", key="k1", path=str(tmp_path))
    model = load_model(ModelReference(stage="llm"), kind="causal", inputs=[given])
    assert [source.text for _, source in sources(model)] == ["stage llm (k1)"]
    with pytest.raises(ConfigError, match=r"no model of stage 'lm'.*stages that left one: llm"):
        load_model(ModelReference(stage="lm"), inputs=[given])


def test_held_types_and_configurations_without_weights(saved):
    model = load_model(str(saved("llama")), kind="causal", dtype="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert load_config(str(saved("llama"))).hidden_size == 32
    assert load_config(ModelReference(config={"model_type": "llama", "hidden_size": 64})).hidden_size == 64


def test_a_configuration_has_no_tokenizer():
    with pytest.raises(ConfigError, match="has no tokenizer"):
        load_tokenizer(ModelReference(config={"model_type": "llama"}))
