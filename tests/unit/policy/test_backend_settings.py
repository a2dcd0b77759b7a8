"""Settings of backends that contradict themselves are refused before anything is loaded."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.policy.backends.remote import name_at_server
from services.policy.settings import PolicySettings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "vllm"}, "set RLHF_BACKEND_URL"),
        ({"backend": "trt"}, "backend"),
        ({"backend": "tgi", "backend_url": "there:80"}, "backend_url"),
        ({"backend": "tgi", "backend_url": "http://me:secret@there"}, "backend_url"),
        ({"backend_adapter_name": "{job}"}, "backend_adapter_name"),
    ],
)
def test_what_cannot_work_is_named(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicySettings(model="m", **settings)


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    given = {"model": "m", "backend": "vllm", "backend_url": "http://there:80", "backend_api_key_file": path}
    with pytest.raises(ValidationError, match=r"RLHF_BACKEND_API_KEY_FILE=.* cannot be read"):
        PolicySettings(**given)
    path.write_text("\n")
    with pytest.raises(ValidationError, match=r"RLHF_BACKEND_API_KEY_FILE=.* is empty"):
        PolicySettings(**given)
    path.write_text("k-e-y\n")
    assert PolicySettings(**given).backend_api_key.get_secret_value() == "k-e-y"


def test_the_key_is_not_shown_and_names_are_the_servers() -> None:
    settings = PolicySettings(model="m", backend="tgi", backend_url="https://there/x", backend_api_key="k-e-y")
    assert "k-e-y" not in repr(settings)
    assert name_at_server(settings.backend_adapter_name, "ppo-1@3") == "ppo-1@3"
    assert name_at_server("{job}-{version}", "ppo-1@3") == "ppo-1-3"
