"""Weights that retention dropped and a new experiment needs are made again; what was finished stays as it was."""


def test_dropped_weights_are_made_again_when_something_needs_them(lab, undisturbed):
    lab.run()
    runs = lab.runs("train")
    results = {run.name: run.result_path.read_bytes() for run in lab.runs()}
    weights = {path: path.read_bytes() for path in lab.root.glob("runs/train-*/checkpoints/*/model.safetensors")}
    nothing = ("retention.last=false", "retention.best=0")
    profile = ("--profile", "smoke")
    lab.ablab("gc", str(lab.study), *lab.overrides, *nothing, *profile, "--yes")
    assert not lab.checkpoints("step-*")
    # Nothing waits for the weights, so nothing is to be done.
    assert "0 runs to do" in lab.run()

    lab.overrides = (*lab.overrides, "defaults.pipeline.evaluate.stride=16")
    plan = lab.ablab("plan", str(lab.study), *lab.overrides, *profile)
    assert plan.count("pending (weights dropped)") == len(runs) == 2
    text = lab.run()
    assert "4 runs to do" in text
    assert {run.name: run.result_path.read_bytes() for run in lab.runs() if run.name in results} == results
    needed = {path: content for path, content in weights.items() if path.exists()}
    assert len(needed) >= 2 and all(path.read_bytes() == content for path, content in needed.items())
    evaluations = [run for run in lab.runs("evaluate") if run.name not in results]
    assert len(evaluations) == 2 and all(run.done for run in evaluations)
    # Another stride scores the same weights with more context, so a little lower and not the same.
    for run in evaluations:
        (before,) = [
            other.read_result().metrics["test/perplexity"]
            for other in lab.runs("evaluate")
            if other.name in results and other.read_order().experiment == run.read_order().experiment
        ]
        assert run.read_result().metrics["test/perplexity"] != before
    for run in runs:
        assert run.attempts() == [1] and not run.remake.exists and run.read_issues() == []
        assert '"equal": true' in (run.path / "remakes.jsonl").read_text().replace('"equal":true', '"equal": true')
    assert "0 runs to do" in lab.run()
