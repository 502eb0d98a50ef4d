"""The Python receivers."""

import sys
from pathlib import Path

import pytest
from receiver_cases import SqliteCases
from receiver_kit import EXAMPLES, SQLITE, Receiver, pip_install, python_with

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = [str(EXAMPLES / name / "requirements.txt") for name in ("python-flask", "python-fastapi")]
    return pip_install(tmp_path_factory.mktemp("pip") / "web", "-r", wanted[0], "-r", wanted[1])


def python(name: str, folder: Path, request: pytest.FixtureRequest) -> Receiver:
    environ = python_with(request.getfixturevalue("packages"))
    return Receiver([sys.executable, str(EXAMPLES / name / "receiver.py")], SQLITE, folder, environ)


class TestFlask(SqliteCases):
    make = staticmethod(lambda folder, request: python("python-flask", folder, request))


class TestFastApi(SqliteCases):
    make = staticmethod(lambda folder, request: python("python-fastapi", folder, request))
