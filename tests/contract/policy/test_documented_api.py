"""Every marked block of docs/api.md, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.policy.conftest import KEY

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"
BLOCKS = re.findall(r"<!-- tested: api -->\n```(bash|python)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
# A document need not show what happens on an error; here every error ends the script.
PREFACE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)])
def test_a_documented_block_works(url: str, language: str, code: str) -> None:
    command = ["bash", "-c", PREFACE + code] if language == "bash" else [sys.executable, "-c", code]
    environment = {**os.environ, "POLICY_URL": url, "POLICY_KEY": KEY}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_both_languages_are_there() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python"}
