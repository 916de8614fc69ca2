import copy

import pytest
import torch

from ablab.contract.experts import ExpertSettings
from ablab.contract.models import ModelReference
from ablab.contract.training import Trainability
from ablab.models.experts import add_experts
from ablab.models.export import export_vision_language
from ablab.models.llava_export import llava_obstacles
from ablab.models.parts import apply_trainability
from ablab.models.vision_language import build_vision_language

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
GRID = {"image_size": 28, "patch_size": 14}
TEXT = {**SHAPE, "vocab_size": 99, "num_hidden_layers": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
DECODERS = {
    "llama": {"model_type": "llama", **TEXT, "attention_bias": True, "mlp_bias": True},
    "llama-tied": {"model_type": "llama", **TEXT, "tie_word_embeddings": True},
    "stablelm": {"model_type": "stablelm", **TEXT, "use_qkv_bias": True},
    "qwen2": {"model_type": "qwen2", **TEXT},
    "gemma": {"model_type": "gemma", **TEXT, "head_dim": 8},
    "phi": {"model_type": "phi", **TEXT},
    "gemma2": {"model_type": "gemma2", **TEXT, "head_dim": 8},
    "granite": {"model_type": "granite", **TEXT, "logits_scaling": 4.0, "embedding_multiplier": 3.0},
}
_DINO = {key: value for key, value in SHAPE.items() if key != "intermediate_size"}
TOWERS = {
    "clip": {"model_type": "clip_vision_model", **SHAPE, **GRID},
    "siglip": {"model_type": "siglip_vision_model", **SHAPE, **GRID},
    "dinov2": {"model_type": "dinov2", **_DINO, **GRID},
    "registers": {"model_type": "dinov2_with_registers", **_DINO, **GRID},
}


def made(decoder="llama", tower="clip", *, connector="mlp2x_gelu", image_token=99, **options):
    model = build_vision_language(
        llm=ModelReference(config=DECODERS[decoder]), tower=ModelReference(config=TOWERS[tower]), connector=connector,
        image_token=image_token, seed=1, **options,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a bias or norm that is forgotten shows
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            assert parameter.abs().sum() > 0 or "token" in name
    return model


def question(model):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 99, (2, 9), generator=generator)
    ids = torch.cat([torch.full((2, model.image_tokens), model.image_token), ids], dim=1)
    return ids, torch.randn(2, 3, 28, 28, generator=generator)


@pytest.mark.parametrize(
    ("decoder", "tower", "layer"),
    [
        ("llama", "clip", -2), ("llama-tied", "siglip", -2), ("stablelm", "siglip", -1), ("qwen2", "dinov2", -2),
        ("gemma", "clip", 1), ("llama", "clip", (1, -1)),
    ],
)  # fmt: skip
def test_transformers_own_class_gives_equal_logits(decoder, tower, layer, tmp_path):
    from transformers import LlavaForConditionalGeneration

    model = made(decoder, tower, layer=layer)
    ids, pixels = question(model)
    with torch.no_grad():
        expected = model(ids, pixels=pixels)
    exported = export_vision_language(model, tmp_path)
    assert exported.format == "llava" and not exported.why
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found = theirs(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(found[..., :99], expected, rtol=1e-5, atol=1e-5)
    assert theirs.config.image_token_id == 99 and theirs.generation_config.suppress_tokens == [99]


def test_keeping_cls_is_kept(tmp_path):
    from transformers import LlavaForConditionalGeneration

    model = made(cls="keep")
    ids, pixels = question(model)
    assert model.image_tokens == 5
    with torch.no_grad():
        expected = model(ids, pixels=pixels)
        export_vision_language(model, tmp_path)
        theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(theirs(input_ids=ids, pixel_values=pixels).logits[..., :99], expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"decoder": "phi"}, "the head of phi has a bias"),
        ({"decoder": "gemma2"}, "the logits of gemma2 are more than its head's product"),
        ({"connector": "resampler", "connector_options": {"queries": 3, "heads": 4}}, "its connector is Resampler"),
        ({"connector": "mlp3x_gelu"}, "its connector is MLPConnector"),
        (
            {"connector": "moe_mlp", "connector_options": {"experts": 3, "active": 2}},
            "its connector is MixtureConnector",
        ),
        ({"decoder": "granite"}, "the logits of granite are more than its head's product"),
        ({"tower": "registers"}, "its tower is dinov2_with_registers"),
    ],
)
def test_what_that_class_cannot_hold_is_ours_and_says_why(options, reason, tmp_path):
    from ablab.models.pretrained import VisionLanguagePreTrained

    model = made(**options)
    ids, pixels = question(model)
    with torch.no_grad():
        expected = model(ids, pixels=pixels)
    arguments = {name: value for name, value in options.items() if name.startswith("connector")}
    exported = export_vision_language(model, tmp_path, arguments=arguments)
    assert exported.format == "own" and any(reason in why for why in exported.why)
    assert "VisionLanguagePreTrained" in exported.load[0]
    again = VisionLanguagePreTrained.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids, pixel_values=pixels), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adapters", [None, 2], ids=["whole", "low-rank"])
def test_language_experts_are_ours_and_come_back(adapters, tmp_path):
    from ablab.models.pretrained import VisionLanguagePreTrained

    model = made()
    add_experts(model.llm, ExpertSettings(layers=(0, 1), adapters=adapters, routing="top-2", flag=False), seed=1)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if ".experts." in name or ".router." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    ids, pixels = question(model)
    with torch.no_grad():
        expected = model(ids, pixels=pixels)
    exported = export_vision_language(model, tmp_path)
    assert exported.format == "own" and any("weights that its class does not know" in why for why in exported.why)
    again = VisionLanguagePreTrained.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids, pixel_values=pixels), expected, rtol=1e-5, atol=1e-6)


def test_a_part_that_transformers_would_not_build_so_is_an_obstacle():
    model = made()
    model.llm.model.layers[0].mlp.extra = torch.nn.Linear(3, 3)
    assert any("its llm has weights that its class does not know" in why for why in llava_obstacles(model))


def test_adapters_lie_beside_the_merged_model_in_pefts_format(tmp_path):
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    model = made()
    base = copy.deepcopy(model.llm)
    parts = {"llm": Trainability(mode="lora", rank=4, targets=("attention",))}
    apply_trainability(model, parts)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    ids, pixels = question(model)
    with torch.no_grad():
        expected = model.eval()(ids, pixels=pixels)
        words = model.llm(ids[:, -9:]).logits
        exported = export_vision_language(model, tmp_path, parts=parts, bases={"llm": "owner/name"})
        theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
        found = theirs(input_ids=ids, pixel_values=pixels).logits[..., :99]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        adapted = PeftModel.from_pretrained(base, str(exported.adapters["llm"])).eval()
        torch.testing.assert_close(adapted(ids[:, -9:]).logits, words)
    assert adapted.peft_config["default"].base_model_name_or_path == "owner/name"
