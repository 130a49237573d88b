"""The analysis of sources reports what is not there, and is content with what is.

It is tried on two small packages, ``theirs`` and ``ours``, that are written here.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from source_trees import FolderTree
from source_uses import Library, Rules, dictionary_keys, lookup, problems

THEIRS = {
    "theirs/__init__.py": "from .engine import Engine as Engine\n",
    "theirs/settings.py": """
        from dataclasses import dataclass
        @dataclass
        class Settings:
            seed: int = 0
            stop: tuple = ()
        """,
    "theirs/engine.py": """
        from abc import ABC, abstractmethod
        from outside import Strange
        LIMIT = 3
        def split(pool, size=1, *, strict=False): ...
        class Base(ABC):
            def __init__(self, rank, config=None):
                self.rank = rank
            @abstractmethod
            def launch(self, pool): ...
            async def sleep(self, level=1): ...
        class Engine(Base):
            def generate(self, ids, *, priority=0): ...
        class Far(Strange): ...
        class Worker:
            def reload(self, weights): ...
        """,
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))


def found_in(folder: Path, code: str, **rules: object) -> list[str]:
    write(folder, {**THEIRS, "ours/__init__.py": "", "ours/code.py": code})
    library = Library(dict.fromkeys(("theirs", "ours"), FolderTree(folder)))
    return problems(library, "ours.code", Rules(packages=("theirs",), **rules))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import theirs.motor", "theirs.motor"),
        ("from theirs import Motor", "Motor"),
        ("from theirs.engine import splits", "splits"),
        ("from theirs import engine\nprint(engine.LIMITS)", "LIMITS"),
        ("from theirs import engine\nengine.LIMITS = 1", "LIMITS"),
        ("from theirs.engine import split\nsplit(1, width=2)", "width"),
        ("from theirs.engine import split\nsplit(1, 2, 3)", "by position"),
        ("from theirs.engine import split\nsplit(size=2)", "needs pool"),
        ("from theirs.engine import split\nsplit(1, pool=2)", "twice"),
        ("from theirs.settings import Settings\nSettings(sead=1)", "sead"),
        ("from theirs import Engine\nEngine(1, configs=2)", "configs"),
        ("from theirs import Engine\ndef f():\n    e = Engine(1)\n    e.generates()", "generates"),
        ("from theirs import Engine\ndef f(e: Engine):\n    e.generate(1, prio=2)", "prio"),
        ("from theirs import Engine\nclass Mine(Engine):\n    def launch(self, pool): self.rang", "rang"),
        ("from theirs import Engine\nclass Mine(Engine):\n    def launch(self, pool): super().launched()", "launched"),
        ("from theirs import Engine\nclass Mine(Engine):\n    def launch(self): ...", "does not take pool"),
        ("from theirs import Engine\nclass Mine(Engine):\n    def launch(self, pool, n): ...", "asks for n"),
        ("from theirs import Engine\nclass Mine(Engine):\n    async def launch(self, pool): ...", "async"),
        ("from theirs import Engine\nclass Mine(Engine):\n    def lunch(self, pool): ...", "lunch overrides nothing"),
        ("from theirs import Engine\nclass Mine(Engine): ...", "lacks launch"),
    ],
)
def test_what_is_not_there_is_reported_once_with_its_line(tmp_path: Path, code: str, named: str) -> None:
    found = [problem for problem in found_in(tmp_path, code) if named in problem]
    assert len(found) == 1
    assert found[0].startswith("ours.code:")


@pytest.mark.parametrize(
    "code",
    [
        "from theirs import Engine, engine\nfrom theirs.engine import split, LIMIT\nsplit(1, strict=True)",
        "from theirs.engine import split\nsplit(*range(9), **{'any': 1})",
        "from theirs.settings import Settings\nSettings(seed=1, stop=())",
        "from theirs import engine\ndef f(engine):\n    engine.anything(1)",
        "from theirs.engine import Far\nFar(1, any=2).anything",
        "from theirs import Engine\nclass Mine(Engine):\n"
        "    def launch(self, pool, again=False):\n        return self.rank, super().generate([1], priority=2)\n"
        "    async def sleep(self, **kwargs): ...",
        "import outside\noutside.anything(1)",
    ],
)
def test_what_is_there_or_out_of_sight_is_not_reported(tmp_path: Path, code: str) -> None:
    assert found_in(tmp_path, code) == []


def test_a_class_has_what_it_is_mixed_into_at_run_time(tmp_path: Path) -> None:
    mixed = {"ours.code:Extension": "theirs.engine:Worker"}
    code = "class Extension:\n    def f(self): self.reload(weights=1)"
    assert found_in(tmp_path, code, mixed_into=mixed) == []
    (problem,) = found_in(tmp_path, code.replace("weights", "tensors"), mixed_into=mixed)
    assert "tensors" in problem


def test_what_is_guarded_may_be_missing_where_the_rules_say_so(tmp_path: Path) -> None:
    code = "try:\n    from theirs import Old\nexcept ImportError:\n    Old = None"
    assert found_in(tmp_path, code, skip_guarded=True) == []
    assert len(found_in(tmp_path, code)) == 1


def test_a_target_is_looked_up_through_bases_and_the_keys_of_a_dictionary_are_read(tmp_path: Path) -> None:
    code = 'd = {"a": 1}\nd |= {"b": 2}\nd.update({"c": 3})\nd["e"] = 4\nother = {"f": 5}'
    write(tmp_path, {**THEIRS, "ours/code.py": code})
    library = Library(dict.fromkeys(("theirs", "ours"), FolderTree(tmp_path)))
    assert lookup(library, "theirs.engine:Engine.sleep") is not None
    assert lookup(library, "theirs.engine:Engine.doze") is None
    assert lookup(library, "theirs.motor:Engine") is None
    assert dictionary_keys(library, "ours.code", "d") == {"a", "b", "c", "e"}
