"""The import contract, so that plain pytest catches a wrong import."""

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_imports_go_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parent.parent / "pyproject.toml"
    status = lint_imports(config_filename=str(config), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
