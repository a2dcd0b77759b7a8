import json
from pathlib import Path

import pytest

from rlhf.demo.dataset import SYSTEM_PROMPT, load_prompts
from rlhf.demo.preset import PRESET, PresetInvalid, Seeds, derive_seed, make_plan


def write_preset(folder: Path, **changes: object) -> Path:
    preset = json.loads(PRESET.read_text()) | changes
    (folder / "preset.json").write_text(json.dumps(preset))
    return folder / "preset.json"


def test_the_shipped_preset_makes_both_jobs() -> None:
    plan = make_plan(PRESET, seed=0)
    pairs = plan.reward_model.pairs
    assert sum(pair.split == "train" for pair in pairs) == 600
    assert plan.reward_model.members >= 4
    assert len(plan.heldout) >= 96
    assert {row["split"] for row in plan.heldout} == {"heldout"}
    assert len(plan.ppo.prompts) == len(load_prompts("train"))
    first = plan.ppo.prompts[0]
    assert [turn.role for turn in first] == ["system", "user"]  # type: ignore[union-attr]
    assert first[0].content == SYSTEM_PROMPT  # type: ignore[union-attr]


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    first, again, other = (make_plan(PRESET, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.reward_model.pairs != other.reward_model.pairs
    assert first.heldout != other.heldout
    assert {first.reward_model.seed, first.ppo.seed}.isdisjoint({other.reward_model.seed, other.ppo.seed})


def test_purposes_have_seeds_of_their_own() -> None:
    seeds = Seeds.derive(7)
    assert seeds.demo == 7
    # sha256("7:ppo") begins with 8 hex digits; the seed is those 32 bits without the first.
    assert seeds.ppo == derive_seed(7, "ppo") < 2**31
    assert len({seeds.pairs, seeds.reward_model, seeds.ppo, seeds.evaluation, seeds.bootstrap}) == 5


def test_steps_replace_the_presets() -> None:
    assert make_plan(PRESET, seed=0, steps=3).ppo.steps == 3


def test_what_cannot_run_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(PresetInvalid, match=r"steps: Input should be greater than or equal to 1 \(got 0\)"):
        make_plan(PRESET, seed=0, steps=0)
    with pytest.raises(PresetInvalid, match="membrs: Extra inputs are not permitted"):
        make_plan(write_preset(tmp_path, reward_model={"membrs": 5}), seed=0)
    with pytest.raises(PresetInvalid, match="epochz"):
        make_plan(write_preset(tmp_path, epochz=1), seed=0)
    with pytest.raises(PresetInvalid, match=r"cannot read the preset .*absent.json: No such file"):
        make_plan(tmp_path / "absent.json", seed=0)
