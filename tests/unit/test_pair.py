"""A pair's folder: what export writes is what is read, and what does not fit together is named.

Not proved here: that an engine loads it (``tests/integration/test_serving_stack.py``).
"""

from __future__ import annotations

import io
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from longshort import manifest
from longshort.checkpoints import STATE, DamagedCheckpointError
from longshort.config import build_config
from longshort.display import Display
from longshort.export import export
from longshort.pair import FILE, PLAYGROUND_LIMITS, read_pair
from longshort.playground import model_path
from longshort.protocol import LONG_SHORT
from longshort.resuming import CONFIG
from longshort.rounds.record import FinishedRound, Record
from longshort.tracking import METRICS, MetricsLog


def shown(run: Path, out: Path, step: int | None = None) -> str:
    output = io.StringIO()
    with Display(Console(file=output, width=200)) as display:
        export(run, out, display, step)
    return output.getvalue()


@cache
def settings(recipe: str, *overrides: str) -> str:
    return OmegaConf.to_yaml(build_config(recipe, overrides))


def begun(folder: Path, *overrides: str, recipe: str = "local") -> Path:
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(settings(recipe, *overrides))
    return folder


def checkpoint(run: Path, step: int, *roles: str, mark: str = "") -> None:
    """A checkpoint as a run leaves it; ``mark`` tells its models apart."""
    folder = run / f"global_step_{step}"
    for role in roles:
        shutil.copytree(model_path(role), folder / role / "huggingface")
        (folder / role / "huggingface" / "mark").write_text(mark or str(step))
    (folder / STATE).write_text(json.dumps({"step": step}))
    manifest.write(folder)


def trained(run: Path) -> Path:
    """Two checkpoints of both policies."""
    begun(run)
    for step in (2, 4):
        checkpoint(run, step, "long", "short")
    MetricsLog(run / METRICS).log(4, {"val/accuracy": 0.5, "val/tokens_per_episode": 81.25})
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return trained(tmp_path / "run")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    shown(trained(folder / "run"), folder / "pair")
    return folder / "pair"


@pytest.fixture
def pair(exported: Path, tmp_path: Path) -> Path:
    """A pair to break."""
    return Path(shutil.copytree(exported, tmp_path / "pair"))


def test_an_exported_pair_is_read_as_it_was_trained(pair: Path) -> None:
    read, tokenizers = read_pair([str(pair)])
    assert (read.name, read.protocol, read.limits) == ("pair", LONG_SHORT, PLAYGROUND_LIMITS)
    assert (read.contexts, read.dtype["long"]) == ({"long": 512, "short": 512}, "float32")
    assert read.sampling.temperature == 1.0
    assert tokenizers["long"].get_vocab() == tokenizers["short"].get_vocab()
    assert (pair / "long" / "mark").read_text() == "4"
    assert sorted(file.name for file in pair.iterdir()) == ["README.md", "long", "pair.json", "short"]


def test_the_card_and_the_file_have_the_evaluation_and_where_it_is_from(pair: Path) -> None:
    told = json.loads((pair / FILE).read_text())
    assert told["evaluation"] == [
        {"after": "step 4", "problems": "validation", "accuracy": 0.5, "tokens_per_episode": 81.25}
    ]
    assert told["training"]["step"] == {"long": 4, "short": 4}
    assert told["training"]["train_files"] == ["playground:train:20000:1"]
    assert "torch" in told["versions"]
    card = (pair / "README.md").read_text()
    assert "| step 4 | validation | 0.5 | 81.25 |" in card
    assert "longshort serve ." in card


def test_a_run_with_rounds_gives_what_its_last_round_selected(run: Path, tmp_path: Path) -> None:
    finished = FinishedRound("a", 4, None, (), 2, "shortest", {"long": 2, "short": None}, {"accuracy": 0.75})
    Record(began=True, start={"accuracy": 0.25}, rounds=(finished,)).save(run)
    assert "global_step_2" in shown(run, tmp_path / "out")
    told = json.loads((tmp_path / "out" / FILE).read_text())
    assert told["training"]["step"] == {"long": 2, "short": None}
    assert [(row["after"], row["accuracy"]) for row in told["evaluation"]] == [("start", 0.25), ("a", 0.75)]
    assert not (tmp_path / "out" / "short" / "mark").exists()


def test_a_policy_that_never_learned_is_the_model_that_the_run_began_with(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "train=long")
    checkpoint(run, 3, "long")
    shown(run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / FILE).read_text())["training"]["step"] == {"long": 3, "short": None}
    assert (tmp_path / "out" / "short" / "model.safetensors").is_file()


def test_another_checkpoint_can_be_had(run: Path, tmp_path: Path) -> None:
    shown(run, tmp_path / "out", step=2)
    assert (tmp_path / "out" / "short" / "mark").read_text() == "2"
    with pytest.raises(ValueError, match=r"has no checkpoint of step 3; there are 2, 4"):
        shown(run, tmp_path / "other", step=3)


def test_who_rested_in_the_round_of_a_checkpoint_has_what_the_round_before_handed_on(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    rounds = ((1, "long"), (2, "long"), (3, "short"), (4, "short"), (5, "long"), (6, "long"))
    for step, role in rounds:
        checkpoint(run, step, role)
    handed_on = [
        FinishedRound("a", 2, None, (), 1, "shortest", {"long": 1, "short": None}),
        FinishedRound("b", 4, None, (), 4, "last", {"long": 1, "short": 4}),
    ]
    Record(began=True, rounds=tuple(handed_on)).save(run)
    for step, long, short in ((2, 2, None), (3, 1, 3), (5, 5, 4)):
        shown(run, tmp_path / f"out{step}", step)
        told = json.loads((tmp_path / f"out{step}" / FILE).read_text())
        assert told["training"]["step"] == {"long": long, "short": short}
        assert (tmp_path / f"out{step}" / "long" / "mark").read_text() == str(long)


def test_a_checkpoint_that_the_last_round_selected_and_that_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    Record(rounds=(FinishedRound("", 5, "guard", (), 5, "the last step", {"long": 5, "short": 5}),)).save(run)
    with pytest.raises(ValueError, match=r"global_step_5/long/huggingface is missing, .* with --step"):
        shown(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run"):
        shown(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"is not empty"):
        shown(run, run)
    with pytest.raises(ValueError, match=r"holds no checkpoint; train with trainer.save_freq"):
        shown(begun(tmp_path / "empty"), tmp_path / "out")
    solo = begun(tmp_path / "solo", recipe="thinkprune_playground")
    with pytest.raises(ValueError, match=r"a team of one"):
        shown(solo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_not_given_on(run: Path, tmp_path: Path) -> None:
    file = run / "global_step_4" / "short" / "huggingface" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"global_step_4 is needed and damaged .*another with --step"):
        shown(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(pair: Path, **values: Any) -> None:
    told = json.loads((pair / FILE).read_text())
    (pair / FILE).write_text(json.dumps({**told, **values}))


def test_prompts_that_are_not_those_of_the_export_are_refused(pair: Path) -> None:
    told = json.loads((pair / FILE).read_text())
    told["protocol"]["system_prompts"]["short"] += "!"
    changed(pair, protocol=told["protocol"])
    with pytest.raises(ValueError, match=r"the prompt of .*short is not the one of pair.json"):
        read_pair([str(pair)])


def test_another_tokenizer_is_refused(pair: Path) -> None:
    file = pair / "long" / "tokenizer.json"
    told = json.loads(file.read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["7"], vocabulary["8"] = vocabulary["8"], vocabulary["7"]
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"the tokenizer of .*long is not the one of pair.json"):
        read_pair([str(pair)])


def test_another_chat_template_is_refused(pair: Path) -> None:
    template = pair / "short" / "chat_template.jinja"
    template.write_text(template.read_text() + "?")
    with pytest.raises(ValueError, match=r"the prompt of .*short"):
        read_pair([str(pair)])


def test_a_template_that_opens_the_turn_itself_is_refused(pair: Path) -> None:
    template = pair / "long" / "chat_template.jinja"
    template.write_text(template.read_text() + "<think>")
    with pytest.raises(ValueError, match=r"long writes the model's opening tag itself"):
        read_pair([str(pair)])


def test_missing_files_are_named(pair: Path) -> None:
    (pair / "long" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"long of the long model holds no weights"):
        read_pair([str(pair)])
    shutil.rmtree(pair / "long")
    with pytest.raises(ValueError, match=r"the folder .*long of the long model is missing"):
        read_pair([str(pair)])
    (pair / FILE).unlink()
    with pytest.raises(ValueError, match=r"is no pair: it has no pair.json; make one with `longshort export"):
        read_pair([str(pair)])


def test_a_model_with_pickles_is_not_served(pair: Path) -> None:
    (pair / "short" / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"short holds pickles .pytorch_model.bin."):
        read_pair([str(pair)])


def test_a_file_that_is_broken_or_of_another_format_is_named(pair: Path) -> None:
    changed(pair, format=9)
    with pytest.raises(ValueError, match=r"has format 9, and this version reads 1"):
        read_pair([str(pair)])
    (pair / FILE).write_text("{")
    with pytest.raises(ValueError, match=r"cannot be read .JSONDecodeError"):
        read_pair([str(pair)])
    (pair / FILE).write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"cannot be read .KeyError"):
        read_pair([str(pair)])


def test_a_context_longer_than_the_model_is_refused(pair: Path) -> None:
    with pytest.raises(ValueError, match=r"a context of 2048 tokens is longer than the 1024 of"):
        read_pair([str(pair)], max_model_len=2048)
    assert read_pair([str(pair)], max_model_len=256)[0].contexts == {"long": 256, "short": 256}


def test_two_models_and_the_playground_are_pairs_too() -> None:
    two, _ = read_pair([str(model_path("long")), str(model_path("short"))])
    assert (two.name, two.limits.max_episode_tokens, two.contexts["long"]) == ("pair", 4096, 1024)
    with pytest.raises(ValueError, match=r"3 models make no pair"):
        read_pair(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"the folder /nowhere/long of the long model is missing"):
        read_pair(["/nowhere/long", "/nowhere/short"])
