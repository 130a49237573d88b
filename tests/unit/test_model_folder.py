"""A model that cannot serve is one sentence before anything starts.

Not proved here: that weights fit their configuration; loading them says.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from longshort.config import build_config
from longshort.model_folder import context_length, load_tokenizer, refuse_pickles
from longshort.playground import model_path
from longshort.protocol import LONG_SHORT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the playground's long model, to be broken."""
    shutil.copytree(model_path("long"), tmp_path / "model")
    return tmp_path / "model"


def recipe(folder: Path, *overrides: str) -> DictConfig:
    return build_config("local", [f"policies.long.model.path={folder}", *overrides])


def test_a_good_model_is_read(folder: Path) -> None:
    config = recipe(folder)
    assert context_length(config, "long") == config.policies.long.rollout.max_model_len
    assert load_tokenizer(config.policies.long, "long", LONG_SHORT).chat_template


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"policies\.long\.model\.path=.*holds no weights"):
        context_length(recipe(folder), "long")


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_that_is_no_model(folder: Path, content: str | None) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"policies\.long\.model\.path=.*is no model: [^\n]+$"):
        context_length(recipe(folder), "long")


def test_a_context_longer_than_the_models(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 480}))
    with pytest.raises(ValueError, match=r"needs a context of 512 tokens .* holds 480; lower those"):
        context_length(recipe(folder), "long")
    shorter = ["policies.long.rollout.max_model_len=470", "team.max_episode_tokens=400"]
    assert context_length(recipe(folder, *shorter), "long") == 470


def test_a_tokenizer_without_a_chat_template_or_with_one_that_opens_the_turn(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    opened = template.read_text() + "{% if add_generation_prompt %}<think>\n{% endif %}"
    template.unlink()
    with pytest.raises(ValueError, match=r"has no chat template; set policies\.long\.model\.custom_chat_template"):
        load_tokenizer(recipe(folder).policies.long, "long", LONG_SHORT)
    config = recipe(folder)
    config.policies.long.model.custom_chat_template = opened
    with pytest.raises(ValueError, match=r"writes the model's opening tag itself"):
        load_tokenizer(config.policies.long, "long", LONG_SHORT)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"policies\.long\.model\.path=.*has no tokenizer: [^\n]+$"):
        load_tokenizer(recipe(folder).policies.long, "long", LONG_SHORT)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.pth", "training_args.bin", "x.pkl"])
def test_a_folder_with_pickles_is_refused_whatever_else_it_holds(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"policies\.long\.model\.path=.*holds pickles \({name}\).*as safetensors"):
        load_tokenizer(recipe(folder).policies.long, "long", LONG_SHORT)


def test_an_adapter_with_pickles_is_refused(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(b"")
    config = recipe(folder, f"policies.long.model.lora_adapter_path={adapter}", "policies.long.model.lora_rank=8")
    with pytest.raises(ValueError, match=r"policies\.long\.model\.lora_adapter_path=.*adapter_model\.bin"):
        load_tokenizer(config.policies.long, "long", LONG_SHORT)


@pytest.mark.parametrize(("files", "refused"), [(["a.bin"], True), (["a.bin", "model.safetensors"], False)])
def test_of_a_model_of_the_hub_pickles_count_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], refused: bool
) -> None:
    copy = tmp_path / "models--someone--model" / "snapshots" / "abc"
    copy.mkdir(parents=True)
    (tmp_path / "models--someone--model" / "refs").mkdir()
    (tmp_path / "models--someone--model" / "refs" / "main").write_text("abc")
    for name in ["config.json", *files]:
        (copy / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    model = OmegaConf.create({"path": "someone/model"})
    if refused:
        with pytest.raises(ValueError, match=r"policies\.long\.model\.path=someone/model holds pickles \(a\.bin\)"):
            refuse_pickles(model, "policies.long.model")
    else:
        refuse_pickles(model, "policies.long.model")
