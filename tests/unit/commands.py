"""A command as a person types it, for tests that look at what it leaves and with which code it ends."""

from __future__ import annotations

import pytest

from nldsl.cli.app import main


def run(*arguments: str) -> int:
    """The exit code of `nldsl ARGUMENTS`."""
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    code = leaving.value.code
    assert isinstance(code, int)
    return code
