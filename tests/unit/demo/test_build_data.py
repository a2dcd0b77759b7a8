"""The build script on saved samples: the same files for the same seed, and no torch."""

import json
import subprocess
import sys

import pytest

from rlhf.demo.build_data import main
from rlhf.demo.prompts import make_prompts

RESPONSES = ("Plants need light because it feeds them.", "It is so.", "Because there are many reasons that", "Yes.")


@pytest.fixture
def samples_file(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [
        {"prompt_id": prompt.id, "setting": "task-a", "response": response, "ended": True}
        for prompt in make_prompts()
        for response in RESPONSES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_same_seed_writes_the_same_files(tmp_path, samples_file, capsys):
    for name in ("a", "b"):
        main(["--out", str(tmp_path / name), "--samples", str(samples_file), "--seed", "5"])
    for file in ("prompts.jsonl", "pairs.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert "pairs, heldout" in capsys.readouterr().out


def test_without_model_and_samples_it_says_what_to_give(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--samples", str(tmp_path / "none.jsonl")])
    assert "--model" in capsys.readouterr().err


def test_demo_data_and_rubric_import_no_torch():
    code = (
        "import sys, rlhf.demo.dataset, rlhf.demo.rubric, rlhf.demo.build_data, rlhf.evaluation.win_rate\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
