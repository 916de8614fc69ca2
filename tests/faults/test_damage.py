"""Checkpoint and event files damaged between a kill and the next launch: an older valid state is taken."""

from ablab.store.manifest import check_manifest


def test_damaged_files_are_passed_over(lab, undisturbed, same, wait_for):
    def two_checkpoints_each():
        runs = lab.runs("train")
        return len(runs) == 2 and all(len(list(run.checkpoints.glob("step-*"))) >= 2 for run in runs)

    process = lab.start()
    assert wait_for(two_checkpoints_each, process)
    lab.kill()
    process.wait()
    first, second = lab.runs("train")
    # One newest checkpoint is cut short, the other has one byte changed in its middle and an index that is no JSON.
    cut, changed = (max(run.checkpoints.glob("step-*")) for run in (first, second))
    weights = cut / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    content = bytearray((changed / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (changed / "model.safetensors").write_bytes(content)
    (second.checkpoints / "index.json").write_bytes(b'{"last": "ste')
    assert check_manifest(cut) and check_manifest(changed)
    # Event files end in half a line, and one has rubbish in its middle.
    for run in (first, second):
        events = run.attempt(1).events
        lines = events.read_bytes().splitlines(keepends=True)
        if run is second:
            lines.insert(len(lines) // 2, b"\x00\xff rubbish\n")
        events.write_bytes(b"".join(lines) + b'{"e": "step", "st')
    for run in (first, second):
        run.state_path.write_bytes(run.state_path.read_bytes()[:20])

    text = lab.run()
    same(lab, text, undisturbed)
    for run, damaged in ((first, cut), (second, changed)):
        starts = [line for line in run.attempt(2).events.read_text().splitlines() if '"start"' in line]
        assert len(starts) == 1 and f'"step":{int(damaged.name[5:])},' not in starts[0].replace(" ", "")
        assert '"step":0,' not in starts[0].replace(" ", ""), "an older checkpoint was there to resume from"
