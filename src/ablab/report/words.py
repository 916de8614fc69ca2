"""Words that stand for codes: statuses, verdicts, failure kinds, names of time, findings.

They are English, marked for the catalogue. A code that is not listed (a task's own name of time, a new finding) is
shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from ablab.report.document import Tone
from ablab.report.language import Translator, mark

STATUSES: Mapping[str, str] = {
    "done": mark("done"),
    "running": mark("running"),
    "failed": mark("failed"),
    "paused": mark("paused"),
    "waiting": mark("waiting"),
    "stopped": mark("stopped"),
    "pending": mark("pending"),
    "planned": mark("planned"),
    "unresolved": mark("unresolved"),
}
STATUS_TONES: Mapping[str, Tone] = {"done": "good", "failed": "bad", "paused": "open", "waiting": "open"}
VERDICTS: Mapping[str, str] = {"met": mark("met"), "not met": mark("not met"), "undecided": mark("undecided")}
TONES: Mapping[str, Tone] = {"met": "good", "not met": "bad", "undecided": "open"}
SEVERITIES: Mapping[str, str] = {"error": mark("error"), "warning": mark("warning"), "note": mark("note")}
SEVERITY_TONES: Mapping[str, Tone] = {"error": "bad", "warning": "open"}
QUANTITIES: Mapping[str, str] = {"ratio": mark("ratio"), "difference": mark("difference"), "value": mark("value")}
TIMES: Mapping[str, str] = {
    "start-up": mark("start-up"),
    "data": mark("waiting for data"),
    "forward-backward": mark("forward and backward"),
    "optimizer": mark("optimiser"),
    "validation": mark("validation"),
    "checkpoint": mark("checkpoint"),
    "other": mark("other"),
}
FAILURES: Mapping[str, str] = {
    "out-of-memory": mark("out of memory"),
    "memory-taken": mark("memory taken by another process"),
    "killed": mark("killed"),
    "lost": mark("worker lost"),
    "time-limit": mark("time limit"),
    "disk-full": mark("disk full"),
    "not-finite": mark("loss not finite"),
    "data": mark("faulty data"),
    "config": mark("configuration"),
    "crash": mark("crash"),
    "stopped": mark("stopped"),
    "done": mark("done"),
}
NOTES: Mapping[str, str] = {
    "observation": mark("observation"),
    "hypothesis": mark("hypothesis"),
    "issue": mark("issue"),
    "next": mark("next"),
}
#: A title for every finding an audit can make; its sentence is the audit's own.
FINDINGS: Mapping[str, str] = {
    "arm-failed": mark("an arm failed"),
    "arms-unfinished": mark("arms are unfinished"),
    "best-of-many-looks": mark("the best of many looks at the validation set"),
    "best-of-one-look": mark("the best of a single look"),
    "checkpoints-exceed-disk": mark("checkpoints exceed the free disk"),
    "disk-tight": mark("the disk gets tight"),
    "control-absent": mark("no control"),
    "control-planned": mark("a control is only planned"),
    "criterion-against-metric": mark("the criterion points against the metric"),
    "declared-difference": mark("a declared difference"),
    "difference-outside-factor": mark("a difference outside the factor"),
    "early-stopping": mark("early stopping"),
    "epochs-exceed-data": mark("more passes over the data than one"),
    "estimate-off": mark("an estimate is off"),
    "evaluation-context-differs": mark("evaluation contexts differ"),
    "factor-without-difference": mark("no difference in the factor"),
    "few-seeds": mark("few seeds"),
    "frozen-parameters-moved": mark("frozen parameters moved"),
    "gated-without-token": mark("gated, and no token"),
    "headwise-without-global": mark("head-wise without a global arm"),
    "hub-offline": mark("the hub is switched off"),
    "hub-unresolved": mark("a hub name without revision"),
    "identical-arms": mark("identical arms"),
    "identical-references": mark("identical references"),
    "identical-results": mark("identical results"),
    "identical-variant": mark("a variant identical to its baseline"),
    "initial-logit-scale-differs": mark("initial logit scale differs"),
    "learning-rate-differs": mark("learning rate differs"),
    "learning-rates-mixed": mark("learning rates are mixed"),
    "little-supervised": mark("little is supervised"),
    "looks-differ": mark("looks at the validation set differ"),
    "memory-exceeds-device": mark("more memory than the devices have"),
    "memory-tight": mark("nearly all memory of the devices"),
    "metric-not-yielded": mark("no stage measures the metric"),
    "metric-on-training-data": mark("a metric on training data"),
    "missing-bundled": mark("bundled data is missing"),
    "missing-file": mark("a file is missing"),
    "missing-package": mark("a package is not installed"),
    "not-audited-inside": mark("not audited inside"),
    "nothing-supervised": mark("nothing is supervised"),
    "nothing-trains": mark("nothing trains"),
    "numerics-differ": mark("numerics differ"),
    "parameter-count-differs": mark("parameter counts differ"),
    "parameters-moved": mark("which parameters moved"),
    "pattern-matches-nothing": mark("a pattern matches nothing"),
    "planned-arm": mark("an arm is only planned"),
    "ratio-of-a-logarithm": mark("the ratio of a logarithm"),
    "reference-not-reproduced": mark("a reference is not reproduced"),
    "results-not-checked": mark("results are not checked yet"),
    "schedule-cut-short": mark("a schedule was cut short"),
    "single-seed": mark("a single seed"),
    "speed-shared-machine": mark("timed on a shared machine"),
    "tokenizers-differ": mark("tokenizers differ"),
    "tokens-per-parameter": mark("few tokens a parameter"),
    "trained-parameters-still": mark("trained parameters stood still"),
    "training-budget-differs": mark("training budgets differ"),
    "tuning-differs": mark("only some arms are tuned"),
    "undeclared-file": mark("a file that is not in the key"),
    "undersized": mark("too small to decide"),
    "unpaired-seeds": mark("seeds without a partner"),
    "validation-partial": mark("validation on a part of the split"),
    "versions-differ": mark("library versions differ"),
    "warmup-exceeds-run": mark("the warm-up exceeds the run"),
    "warmup-long": mark("a long warm-up"),
    "window-exceeds-context": mark("the window exceeds the context"),
    "word-level-reference": mark("a word-level reference"),
    "accelerator-cannot-apply": mark("an accelerator that cannot be used here"),
    "adapter-target-missing": mark("adapters for matrices that are not there"),
    "adapters-on-some-layers": mark("adapters on some layers only"),
    "answers-truncated": mark("answers are cut off"),
    "attention-cannot-apply": mark("an attention implementation that cannot be used here"),
    "auxiliary-loss-without-gradient": mark("auxiliary loss without gradient"),
    "batch-exceeds-positives": mark("batch larger than the positives"),
    "benchmark-in-training": mark("a benchmark in the training data"),
    "benchmarks-differ": mark("arms are asked different benchmarks"),
    "decoding-differs": mark("decoding differs"),
    "dialogues-overlap": mark("dialogues in training and evaluation"),
    "drop-rate-idle": mark("a drop rate that drops nothing"),
    "dropping-saves-no-token": mark("dropping saves no token"),
    "evaluation-images-in-training": mark("evaluation images in training"),
    "evaluation-questions-in-training": mark("evaluation questions in training"),
    "expert-layer-beyond-model": mark("experts in a layer the model does not have"),
    "experts-differ": mark("other experts than were trained"),
    "frozen-random-part": mark("a random part that never trains"),
    "judge-missing": mark("judged benchmarks without a judge"),
    "labels-all-masked": mark("samples without supervised tokens"),
    "labels-all-open": mark("samples supervised throughout"),
    "layer-beyond-model": mark("a layer the model does not have"),
    "last-layer-without-gradient": mark("last layer without gradient"),
    "loss-below-siblings": mark("a loss far below its siblings"),
    "merge-base-no-parent": mark("a merge base that is nobody's parent"),
    "one-pair-batch": mark("a last batch of one pair"),
    "outputs-cut-short": mark("outputs are cut short"),
    "part-rates-differ": mark("learning rates of parts differ"),
    "positions-exceeded": mark("positions beyond the model's limit"),
    "positive-outside-pool": mark("positives that are not in the pool"),
    "precision-auto-on-t5": mark("precision left open on a T5"),
    "precision-overflows": mark("a precision that overflows"),
    "repeated-positives": mark("repeated positives in a batch"),
    "rotary-misfit": mark("2D-RoPE does not fit the heads"),
    "rouge-tokenizer-drops-text": mark("ROUGE drops most of the text"),
    "rouge-tokenizer-unknown": mark("what ROUGE drops is not known"),
    "rows-left-out": mark("damaged rows are left out"),
    "schedule-total-differs": mark("a schedule of another length than the run"),
    "score-scale-differs": mark("scores of different scale"),
    "side-is-empty": mark("passages without what is seen of them"),
    "special-tokens-untrained": mark("special tokens that never train"),
    "tap-out-of-range": mark("a tapped layer that does not exist"),
    "task-vector-zero": mark("a task vector of zero"),
    "template-differs": mark("another chat template than in training"),
    "test-positive-in-train": mark("test positives in training"),
    "text-truncated": mark("texts are cut off"),
    "train-query-in-test": mark("training queries in the test"),
    "trim-changes-nothing": mark("a trim that changes nothing"),
    "unlock-matches-nothing": mark("unlocking that matches nothing"),
    "user-turns-supervised": mark("the user's words are supervised"),
}


def word(t: Translator, words: Mapping[str, str], code: str) -> str:
    """Return the word for a code in the report's language; the code itself where there is none."""
    found = words.get(code)
    return code if found is None else t(found)
