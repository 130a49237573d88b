"""The folder of a user's sockets and of Ray's files.

Not proved here: that Ray finds room for its sockets' names (the integration tests start it).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from workers import naming
from workers.naming import ray_folder, user_folder


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_nobody_else_enters_a_users_folder_even_one_that_was_open() -> None:
    folder = user_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert user_folder().stat().st_mode & 0o777 == 0o700


def test_what_is_not_the_users_own_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    link = user_folder()
    link.rmdir()
    link.symlink_to(tmp_path / "home")
    with pytest.raises(ValueError, match=r"is not a folder of yours; remove it or set TMPDIR"):
        user_folder()
    link.unlink()
    link.mkdir()
    monkeypatch.setattr(naming.os, "getuid", lambda: 12345)
    link.rename(tmp_path / "longshort-12345")
    with pytest.raises(ValueError, match=r"longshort-12345 is not a folder of yours"):
        user_folder()


def test_rays_files_lie_where_its_sockets_have_names_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(ray_folder()).startswith("/tmp/longshort-"), "the folder of a test is too deep"
    with tempfile.TemporaryDirectory(prefix="l", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert ray_folder() == user_folder() / "ray"
        assert ray_folder().is_relative_to(short)
