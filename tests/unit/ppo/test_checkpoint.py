import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf.contracts.errors import Conflict
from services.trainer.ppo.checkpoint import KEPT, Checkpoint, load_newest, restore, save_checkpoint

STATE = {"beta": 0.1 + 0.2, "reached": True}
HISTORY = [{"policy_loss": 1 / 3, "tokens": 17}, {"policy_loss": -1e-17, "tokens": 18}]


def trained(seed: int = 0, width: int = 4) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    """Two parameters after three AdamW steps, and one that never had a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, width), "b.weight": (5,), "idle": (2,)}
    parameters = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.01)
    for _ in range(3):
        for name in ("a", "b.weight"):
            parameters[name].grad = torch.randn(parameters[name].shape, generator=generator)
        optimizer.step()
    return parameters, optimizer


def save(folder: Path, step: int, seed: int = 0) -> None:
    save_checkpoint(folder, step, *trained(seed), STATE, HISTORY)


def newest(folder: Path) -> Checkpoint:
    checkpoint = load_newest(folder)
    assert checkpoint is not None
    return checkpoint


def test_everything_comes_back_bit_for_bit_and_goes_on_the_same(tmp_path: Path) -> None:
    parameters, optimizer = trained()
    save_checkpoint(tmp_path, 7, parameters, optimizer, STATE, HISTORY)
    checkpoint = newest(tmp_path)
    assert (checkpoint.step, checkpoint.state, checkpoint.history) == (7, STATE, HISTORY)
    others, other_optimizer = trained(seed=1)
    restore(checkpoint, others, other_optimizer)
    for round_ in range(3):
        for name, parameter in parameters.items():
            assert torch.equal(others[name], parameter)
            saved, back = optimizer.state.get(parameter, {}), other_optimizer.state.get(others[name], {})
            assert set(saved) == set(back)
            assert all(torch.equal(saved[key], back[key]) for key in saved)
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(round_))
            parameter.grad = others[name].grad = gradient
        optimizer.step()
        other_optimizer.step()


def test_an_untrained_optimizer_is_saved_too(tmp_path: Path) -> None:
    parameters = {"a": nn.Parameter(torch.ones(2))}
    save_checkpoint(tmp_path, 1, parameters, torch.optim.AdamW(parameters.values()), {}, [])
    fresh = {"a": nn.Parameter(torch.zeros(2))}
    optimizer = torch.optim.AdamW(fresh.values())
    restore(newest(tmp_path), fresh, optimizer)
    assert fresh["a"].tolist() == [1.0, 1.0]
    assert optimizer.state_dict()["state"] == {}


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "checkpoints") is None
    assert load_newest(tmp_path) is None


def test_only_the_newest_stay(tmp_path: Path) -> None:
    # 9 and 10, 99 and 100: names sort as numbers do.
    for step in (1, 2, 9, 10, 99, 100):
        save(tmp_path, step)
        assert newest(tmp_path).step == step
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000099", "step-00000100"]
    assert KEPT == 2


def test_chosen_ones_stay_beside_the_newest_while_they_are_chosen(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_checkpoint(tmp_path, step, *trained(), STATE, HISTORY, keep={2, 4, 99})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (2, 4, 5, 6)]
    assert newest(tmp_path).step == 6
    save_checkpoint(tmp_path, 7, *trained(), STATE, HISTORY, keep={4})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (4, 6, 7)]


@pytest.mark.parametrize("file", ["parameters.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damage_is_found_and_named(file: str, damage: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "step-00000002" / file
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    if (file, damage) == ("manifest.json", "flipped"):
        # A bit of the manifest: it names a wrong sum or file, or is no JSON; any of them is a conflict.
        file = "step-00000002"
    with pytest.raises(Conflict, match=file) as caught:
        load_newest(tmp_path)
    assert str(tmp_path / "step-00000002") in str(caught.value)
    assert "restore that folder from a backup, or submit the job again" in str(caught.value)


def test_what_a_crash_left_is_not_loaded_and_goes_with_the_next_save(tmp_path: Path) -> None:
    save(tmp_path, 1)
    half = tmp_path / ".half"
    half.mkdir()
    (half / "parameters.safetensors").write_bytes(b"half")
    assert newest(tmp_path).step == 1
    save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_failed_save_leaves_the_earlier_checkpoint_alone(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, *trained(), {"not json": object()}, [])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1, seed=0)
    save(tmp_path, 1, seed=1)
    assert torch.equal(newest(tmp_path).parameters["a"], trained(seed=1)[0]["a"])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, 1)
    other, optimizer = trained(width=8)
    with pytest.raises(ValueError, match=r"a has shape \(3, 4\) in the checkpoint and \(3, 8\) in the model"):
        restore(newest(tmp_path), other, optimizer)
    other, optimizer = trained()
    other["more"] = nn.Parameter(torch.zeros(1))
    before = other["a"].detach().clone()
    with pytest.raises(ValueError, match=r"more has shape None in the checkpoint and \(1,\) in the model"):
        restore(newest(tmp_path), other, optimizer)
    assert torch.equal(other["a"], before)


def test_there_is_no_pickle_in_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    names = {p.name for p in (tmp_path / "step-00000001").iterdir()}
    assert names == {"parameters.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert json.loads((tmp_path / "step-00000001" / "state.json").read_text())["step"] == 1
