"""Two launches of one study at once: they share the work and do nothing twice."""


def test_two_launches_at_once_do_every_run_once(lab, undisturbed, same):
    first, second = lab.start(), lab.start()
    texts = [lab.finish(process) for process in (first, second)]
    for run in lab.runs():
        assert run.attempts() == [1] and run.read_result().attempts == 1, run.name
        assert run.read_issues() == []
    for text in texts:
        same(lab, text, undisturbed)
