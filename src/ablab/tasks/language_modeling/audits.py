"""What makes a language-modelling study unsound, beyond the general checks; no torch.

`DERIVED` tells facts from the study's own numbers, so that the general checks can speak before anything has run: the
initial scale of the attention logits, the tokens an arm will see, the tokens its data holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ablab.audit.findings import finding, listed, place, shown
from ablab.audit.training import setting_of
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.study.schema import Experiment, Study
from ablab.tasks.language_modeling.sections import Data, Model

#: Roughly the tokens of hub corpora's train splits under GPT-2's BPE; once prepared, their own counts are used.
GPT2_TOKENS = {"tinystories": 474_000_000, "openwebtext": 9_040_000_000, "wikitext-103": 118_000_000}
VOCABULARY = {"gpt2": 50_257, "bytes": 257}
#: Tokens a parameter of a compute-optimal model (Hoffmann et al. 2022, arXiv 2203.15556).
OPTIMAL_TOKENS = 20
#: Metrics that depend on the tokenizer, by their last part.
TOKEN_LEVEL = ("loss", "perplexity")


def model_of(experiment: Experiment) -> Model | None:
    """Return the model section of the last stage that has one."""
    sections = (stage.sections.get("model") for stage in reversed(experiment.stages))
    return next((section for section in sections if isinstance(section, Model)), None)


def data_of(experiment: Experiment) -> Data | None:
    """Return the data section of the first stage that has one."""
    sections = (stage.sections.get("data") for stage in experiment.stages)
    return next((section for section in sections if isinstance(section, Data)), None)


def logit_scale(_: Study, experiment: Experiment) -> float | None:
    """Return the standard deviation of q kᵀ / sqrt(D) at initialisation, for normalised inputs and distinct tokens.

    A coordinate of a projection of C independent unit inputs has variance C sigma² for entries N(0, sigma²), and 1
    for orthonormal rows or the identity; the logit's is the product of the query's and the key's.
    """
    model = model_of(experiment)
    if model is None:
        return None
    attention, width = model.attention, model.width
    drawn = model.initial_std * math.sqrt(width)
    if attention.query_key == "identity-query":
        return drawn
    if "orthogonal" in attention.query_key:
        return 1.0
    if attention.query_key == "frozen-normal":
        sigma = attention.scale if attention.scale is not None else 1 / math.sqrt(width)
        return sigma**2 * width
    return drawn**2


def tokens_seen(_: Study, experiment: Experiment) -> int | None:
    """Return the training tokens an arm's own stages will see: steps x batch x context."""
    total = 0
    for stage in experiment.stages:
        if stage.kind != "train":
            continue
        model, steps, batch = stage.sections.get("model"), stage.parameters.steps, stage.parameters.batch
        if not isinstance(model, Model) or steps is None:
            return None
        total += steps * batch * model.context
    return total or None


def tokens_held(_: Study, experiment: Experiment) -> int | None:
    """Return about how many tokens the train split holds, for known corpora and explicit limits; None for others."""
    data = data_of(experiment)
    if data is None:
        return None
    known = GPT2_TOKENS.get(data.source) if data.tokenizer.name == "gpt2" and data.max_documents is None else None
    limits = [limit for limit in (known, data.max_tokens) if limit is not None]
    return min(limits, default=None)


def parameter_count(model: Model, vocabulary: int) -> int:
    """Return the parameters of the transformer, tied ones once, frozen ones included."""
    width, hidden = model.width, model.hidden
    norm = width * (2 if model.bias else 1)
    feed = 2 * width * hidden + (hidden + width if model.bias else 0)
    attend = 4 * width * width + (4 * width if model.attention.bias else 0)
    head = 0 if model.tied_head else vocabulary * width
    return vocabulary * width + head + model.context * width + model.layers * (attend + feed + 2 * norm) + norm


def vocabulary_of(data: Data) -> int | None:
    """Return the size of the vocabulary a data section asks for."""
    return data.tokenizer.vocabulary or VOCABULARY.get(data.tokenizer.name)


def frozen_count(model: Model) -> int:
    """Return the query and key parameters that never move."""
    if not model.attention.query_key.startswith("frozen"):
        return 0
    return 2 * model.width**2 * (model.layers - model.attention.unfrozen_layers)


def checkpoint_bytes(_: Study, experiment: Experiment) -> int | None:
    """Return the bytes of one checkpoint: weights, and Adam's two moments of what trains, in fp32."""
    model, data = model_of(experiment), data_of(experiment)
    vocabulary = None if data is None else vocabulary_of(data)
    if model is None or vocabulary is None:
        return None
    total, frozen = parameter_count(model, vocabulary), frozen_count(model)
    stored = total - frozen if model.store_frozen == "seed" else total
    return 4 * stored + 8 * (total - frozen)


DERIVED = {
    "logits.scale": logit_scale,
    "tokens.seen": tokens_seen,
    "tokens.held": tokens_held,
    "checkpoint.bytes": checkpoint_bytes,
}


def tokenizers_differ(view: AuditView) -> Iterable[Finding]:
    """Errors: token-level metrics compared between tokenizers; notes: byte- or word-level ones, which do compare."""
    for index, comparison in view.comparisons():
        used: dict[str, list[str]] = {}
        for arm in view.arms(comparison, controls=True):
            data = data_of(arm)
            if data is not None:
                used.setdefault(_tokenizer(data), []).append(arm.name)
        if len(used) < 2:
            continue
        level = comparison.metric.partition("@")[0].rpartition("/")[2]
        told = "; ".join(f"{name}: {listed(arms)}" for name, arms in used.items())
        yield finding(
            view,
            "tokenizers-differ",
            "error" if level in TOKEN_LEVEL else "note",
            place(index, comparison),
            f"arms use different tokenizers ({told})"
            + (f", and {comparison.metric} of different tokenizers does not compare" if level in TOKEN_LEVEL else ""),
            remedy="compare bits_per_byte or word_perplexity, or use one tokenizer",
            evidence=used,
            subjects=tuple(name for arms in used.values() for name in arms),
            comparison=comparison,
        )


def _tokenizer(data: Data) -> str:
    """Return what determines a tokenizer: a trained one also depends on the text it was trained on."""
    if data.tokenizer.name == "bpe":
        return f"bpe {data.tokenizer.vocabulary} trained on {data.source}"
    return data.tokenizer.name


def context_differs(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms that may look back a different number of tokens: more context is lower perplexity by itself."""
    for index, comparison in view.comparisons():
        if any(path.endswith("context") for path in comparison.factor):
            continue
        seen: dict[tuple[int, int], list[str]] = {}
        for arm in view.arms(comparison, controls=True):
            model = model_of(arm)
            if model is not None:
                seen.setdefault(_window(arm, model), []).append(arm.name)
        if len(seen) > 1:
            told = "; ".join(f"window {w}, stride {s}: {listed(arms)}" for (w, s), arms in seen.items())
            yield finding(
                view,
                "evaluation-context-differs",
                "warning",
                place(index, comparison),
                f"predictions of these arms see different contexts ({told}): that alone moves perplexity",
                remedy="evaluate all arms with one window and stride",
                evidence={f"{w}/{s}": arms for (w, s), arms in seen.items()},
                subjects=tuple(name for arms in seen.values() for name in arms),
                comparison=comparison,
            )


def _window(arm: Experiment, model: Model) -> tuple[int, int]:
    for stage in arm.stages:
        if stage.kind == "evaluate":
            window = stage.parameters.window or model.context
            return window, stage.parameters.stride or window
    return model.context, model.context


def window_fits(view: AuditView) -> Iterable[Finding]:
    """Errors: an evaluation window longer than the positions a model has learned."""
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            model = stage.sections.get("model")
            window = setting_of(stage.parameters, "window") if stage.kind == "evaluate" else None
            if isinstance(model, Model) and window is not None and window > model.context:
                yield finding(
                    view,
                    "window-exceeds-context",
                    "error",
                    f"{stage_place(experiment, stage)}.window",
                    f"{experiment.name} is evaluated with windows of {window} tokens, and its model has "
                    f"{model.context} positions",
                    remedy="set the window to the model's context or less",
                    evidence={"window": window, "context": model.context},
                    subjects=(experiment.name,),
                )


def partial_validation(view: AuditView) -> Iterable[Finding]:
    """Warnings: a validation metric taken on the first batches of the split only."""
    for index, comparison in view.comparisons():
        if not comparison.metric.startswith("val/"):
            continue
        parts = {
            arm.name: batches
            for arm in view.arms(comparison)
            for stage in view.training(arm)[-1:]
            if (batches := setting_of(stage.stage.parameters, "validation.batches")) is not None
        }
        if parts:
            yield finding(
                view,
                "validation-partial",
                "warning" if len(set(parts.values())) > 1 or len(parts) < len(view.arms(comparison)) else "note",
                place(index, comparison),
                f"{comparison.metric} is taken on the first {' or '.join(map(str, sorted(set(parts.values()))))} "
                f"batches of the validation split, not on all of it ({listed(list(parts))})",
                remedy="leave validation.batches out, or compare a metric of the evaluate stage",
                evidence=parts,
                subjects=tuple(parts),
                comparison=comparison,
            )


def on_training_data(view: AuditView) -> Iterable[Finding]:
    """Warnings: a verdict on the training data."""
    for index, comparison in view.comparisons():
        if comparison.metric.startswith("train/"):
            yield finding(
                view,
                "metric-on-training-data",
                "warning",
                place(index, comparison),
                f"{comparison.metric} is measured on the training data: it says how well an arm fits, not how well it "
                "predicts",
                remedy="compare val/ or test/",
                comparison=comparison,
            )


def undertrained(view: AuditView) -> Iterable[Finding]:
    """Notes: far fewer training tokens than parameters would use: a difference may close or open with more."""
    few: dict[str, float] = {}
    for experiment in view.study.experiments.values():
        model, data, seen = model_of(experiment), data_of(experiment), tokens_seen(view.study, experiment)
        vocabulary = None if data is None else vocabulary_of(data)
        if model is None or vocabulary is None or seen is None:
            continue
        ratio = seen / parameter_count(model, vocabulary)
        if ratio < OPTIMAL_TOKENS:
            few[experiment.name] = ratio
    if few:
        low, high = min(few.values()), max(few.values())
        told = f"{low:.2g}" if math.isclose(low, high, rel_tol=0.01) else f"{low:.2g} to {high:.2g}"
        yield finding(
            view,
            "tokens-per-parameter",
            "note",
            "experiments",
            f"{listed(list(few))} see {told} tokens a parameter, where about {OPTIMAL_TOKENS} are compute-optimal: "
            "what holds here may not hold for longer training",
            remedy="say so beside the verdict, or train longer",
            evidence=few,
            subjects=tuple(few),
        )


def word_level(view: AuditView) -> Iterable[Finding]:
    """Notes: references that mix word-level and token-level perplexity, which do not compare."""
    for name, reference in view.study.references.items():
        levels = {metric.rpartition("/")[2] for metric in reference.values}
        if "word_perplexity" in levels:
            value = next(v for metric, v in reference.values.items() if metric.endswith("word_perplexity"))
            yield finding(
                view,
                "word-level-reference",
                "note",
                f"references.{name}",
                f"the reference {shown(value)} of {name} is word-level: it compares with word_perplexity only, never "
                "with a perplexity per token",
                remedy="keep the metric's name with the number",
                subjects=(name,),
            )


def headwise_claim(view: AuditView) -> Iterable[Finding]:
    """Notes: head-wise orthogonality under test without the global arm that would tell it apart.

    A square orthogonal matrix already has orthonormal rows inside each head; drawing head by head only gives up
    orthogonality between heads.
    """
    for index, comparison in view.comparisons():
        kinds = {
            arm.name: model.attention.query_key for arm in view.arms(comparison) if (model := model_of(arm)) is not None
        }
        headwise = [name for name, kind in kinds.items() if kind == "frozen-orthogonal"]
        if headwise and "frozen-global-orthogonal" not in kinds.values():
            yield finding(
                view,
                "headwise-without-global",
                "note",
                place(index, comparison),
                f"{listed(headwise)} is orthogonal head by head, and no arm is globally orthogonal: nothing here says "
                "that drawing head by head matters",
                remedy="add an arm with query_key: frozen-global-orthogonal",
                subjects=tuple(headwise),
                comparison=comparison,
            )


AUDITS = (
    tokenizers_differ,
    context_differs,
    window_fits,
    partial_validation,
    on_training_data,
    undertrained,
    word_level,
    headwise_claim,
)
