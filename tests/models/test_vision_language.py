import pytest
import torch

from ablab.contract.failure import DataError
from ablab.contract.models import ModelReference
from ablab.contract.training import Trainability
from ablab.models.parts import apply_trainability
from ablab.models.vision_language import build_vision_language

IMAGE = 99
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOWER = {"model_type": "siglip_vision_model", **SHAPE, "image_size": 28, "patch_size": 14}
TEXT = {**SHAPE, "vocab_size": 99, "max_position_embeddings": 128}
DECODERS = {
    "llama": {"model_type": "llama", **TEXT, "num_key_value_heads": 2},
    "phi": {"model_type": "phi", **TEXT},
    "gemma": {"model_type": "gemma", **TEXT, "head_dim": 8, "num_key_value_heads": 2},
    "stablelm": {"model_type": "stablelm", **TEXT, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2", **TEXT, "num_key_value_heads": 2},
    "gemma2": {"model_type": "gemma2", **TEXT, "head_dim": 8, "num_key_value_heads": 2},
}


def made(decoder="llama", *, attention="auto", connector="mlp2x_gelu", seed=1):
    llm = ModelReference(config=DECODERS[decoder], attention=attention)
    model = build_vision_language(
        llm=llm, tower=ModelReference(config=TOWER), connector=connector, image_token=IMAGE, seed=seed
    ).eval()
    with torch.no_grad():  # every bias counts
        generator = torch.Generator().manual_seed(4)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def sample(length, images, seed):
    """A sample: image tokens first, then words; labels on the second half."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat([torch.full((4 * images,), IMAGE), torch.randint(3, 99, (length,), generator=generator)])
    labels = ids.clone()
    labels[: 4 * images + length // 2] = -100
    return ids, labels, torch.randn(images, 3, 28, 28, generator=generator)


def packed(samples, width):
    """Rows of one packed sequence, with a bool mask and positions that start again."""
    ids, labels = torch.full((1, width), 0), torch.full((1, width), -100)
    positions, segments = torch.zeros(1, width, dtype=torch.long), torch.zeros(1, width, dtype=torch.long)
    start = 0
    for number, (tokens, wanted, _) in enumerate(samples, 1):
        end = start + len(tokens)
        ids[0, start:end], labels[0, start + 1 : end] = tokens, wanted[1:]
        positions[0, start:end], segments[0, start:end] = torch.arange(len(tokens)), number
        start = end
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    mask = (segments[:, :, None] == segments[:, None, :]) & causal
    return ids, labels, positions, mask.unsqueeze(1), torch.cat([pixels for *_, pixels in samples])


SAMPLES = [sample(9, 1, 1), sample(6, 0, 2), sample(11, 2, 3)]


def apart(model):
    total = torch.zeros(())
    logits = []
    for ids, labels, pixels in SAMPLES:
        given = {"pixels": pixels} if len(pixels) else {}
        total = total + model(ids[None], labels=labels[None], **given)
        logits.append(model(ids[None], **given)[0])
    return total, torch.cat(logits)


@pytest.mark.parametrize(
    ("decoder", "attention"), [("llama", "sdpa"), ("llama", "eager"), ("phi", "sdpa"), ("gemma2", "eager")]
)
def test_packed_samples_neither_see_nor_move_each_other(decoder, attention):
    """Logits and gradients of a packed row equal those of its samples alone; positions alone would leak."""
    model = made(decoder, attention=attention)
    length = sum(len(ids) for ids, *_ in SAMPLES)
    ids, labels, positions, mask, pixels = packed(SAMPLES, length + 5)
    given = {"pixels": pixels, "position_ids": positions}
    total, logits = apart(model)
    mask[0, 0].fill_diagonal_(True)
    found = model(ids, attention_mask=mask, **given)[0, :length]
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    causal = torch.ones_like(mask).tril()
    leaky = model(ids, attention_mask=causal, **given)[0, :length]
    assert (leaky - logits).abs().max() > 0.01

    loss = model(ids, attention_mask=mask, labels=labels, **given)
    torch.testing.assert_close(loss, total, rtol=1e-6, atol=1e-4)
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    assert {n.partition(".")[0] for n in expected} == {"llm", "tower", "connector"}


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_is_the_cross_entropy_of_the_logits(decoder):
    """The plain head's short way, the bias of Phi's head and the cap of Gemma 2's logits."""
    model = made(decoder)
    ids, labels, pixels = SAMPLES[2]
    logits = model(ids[None], pixels=pixels)[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    torch.testing.assert_close(model(ids[None], pixels=pixels, labels=labels[None]), expected, rtol=1e-5, atol=1e-5)


def test_images_stand_in_their_places_in_the_order_of_the_rows():
    model = made()
    ids, _, pixels = SAMPLES[2]
    other = torch.cat([torch.randint(3, 99, (len(ids) - 4,)), torch.full((4,), IMAGE)])
    third = torch.randn(1, 3, 28, 28)
    embedded = model.embed(torch.stack([ids, other]), pixels=torch.cat([pixels, third]))
    seen = model.see(torch.cat([pixels, third]))
    torch.testing.assert_close(embedded[0, :8], seen[:2].flatten(0, 1))
    torch.testing.assert_close(embedded[1, -4:], seen[2])
    torch.testing.assert_close(embedded[0, 8:], model.llm.get_input_embeddings()(ids[8:]))


def test_features_from_a_cache_are_the_same_as_pixels():
    model = made()
    ids, labels, pixels = SAMPLES[2]
    expected = model(ids[None], pixels=pixels, labels=labels[None])
    features = model.tower(pixels)
    assert torch.equal(model(ids[None], features=features, labels=labels[None]), expected)


def test_image_tokens_without_images_are_an_error():
    model = made()
    ids, _, pixels = SAMPLES[2]
    with pytest.raises(DataError, match="8 image tokens in the input, but 0 images"):
        model(ids[None])
    with pytest.raises(DataError, match=r"8 image tokens in the input, but 1 images of 4 features each \(4\)"):
        model(ids[None], pixels=pixels[:1])


def test_generation_with_cache_and_padding_equals_one_token_after_the_other_without():
    model = made()
    prompts = [SAMPLES[0], SAMPLES[2]]
    width = max(len(ids) for ids, *_ in prompts)
    ids = torch.stack([torch.cat([torch.zeros(width - len(i), dtype=torch.long), i]) for i, *_ in prompts])
    mask = torch.stack([(torch.arange(width) >= width - len(i)).long() for i, *_ in prompts])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    pixels = torch.cat([p for *_, p in prompts])
    made_tokens = model.generate(ids, pixels=pixels, attention_mask=mask, **options)
    for row, (tokens, _, own) in enumerate(prompts):
        for step in range(6):
            logits = model(tokens[None], pixels=own)[0, -1]
            tokens = torch.cat([tokens, logits.argmax()[None]])
            assert tokens[-1] == made_tokens[row, step]
    beams = model.generate(ids, pixels=pixels, attention_mask=mask, num_beams=3, **options)
    assert beams.shape[0] == 2


def test_text_alone_while_only_the_connector_trains_is_a_gradient_of_zero():
    model = made()
    apply_trainability(model, {"llm": Trainability(mode="frozen"), "tower": Trainability(mode="frozen")})
    ids, labels, _ = SAMPLES[1]
    model.train()
    model(ids[None], labels=labels[None]).backward()
    assert all(bool((p.grad == 0).all()) for p in model.connector.parameters())


def test_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        model = made().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids, labels, pixels = SAMPLES[2]
        model(ids[None], pixels=pixels, labels=labels[None]).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_mixture_of_experts_tells_its_loss():
    model = made(connector="moe_mlp")
    ids, labels, pixels = SAMPLES[2]
    model(ids[None], pixels=pixels, labels=labels[None])
    (name, value), *rest = model.auxiliary_losses().items()
    assert name == "connector-balance" and not rest and 0.01 <= float(value.detach()) < 0.05
    assert made().auxiliary_losses() == {}


def test_parts_differ_between_seeds_and_arms_share_what_they_share():
    first, again, other = made(seed=1), made(seed=1, connector="linear"), made(seed=2)
    name = "llm.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    key = "connector.mlp.0.weight"
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
