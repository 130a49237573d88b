"""From folders to records: which kind a folder is of, what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshort.report.pieces import Pieces, pieces_of, units
from longshort.report.settings import shown_settings
from longshort.report.sources import named_apart, read_run
from longshort.report.transcripts import correct_by, read_transcripts
from longshort.tracking import write_episodes
from tests.report_runs import (
    HOSTILE,
    SECRET,
    episode,
    hostile_episodes,
    write_coldstart,
    write_evaluation,
    write_training,
)


def test_a_training_run_has_its_rounds_and_every_episode_that_it_kept(tmp_path: Path) -> None:
    run = read_run(write_training(tmp_path / "run"))
    assert run.kind == "training" and run.remarks == ()
    assert [(m.stage, m.accuracy, m.tokens) for m in run.measures] == [
        ("start", 0.8, 50.0),
        ("long-r1", 0.7, 20.0),
        ("short-r1", 0.7, 20.0),
    ]
    training, validation = run.samples[:4], run.samples[4:]
    assert [s.correct for s in training] == [False, True, False, True] and all(s.correct for s in validation)
    assert {(s.origin, s.step, s.round) for s in training} == {("training", 1, "long-r1")}
    assert {(s.origin, s.step, s.round) for s in validation} == {("validation", 2, "short-r1")}
    assert training[0].rewards == {"long/correct": 0.0, "long/length": -0.25}


def test_only_a_learners_turns_of_training_episodes_are_trained(tmp_path: Path) -> None:
    run = read_run(write_training(tmp_path / "run"))
    assert [turn.trained for turn in run.samples[0].turns] == [True, False]
    assert [turn.trained for turn in run.samples[-1].turns] == [False, False]
    transcripts = read_run(write_training(tmp_path / "other", kept=False))
    assert transcripts.samples[0].turns[0].trained is None


def test_a_run_that_kept_no_episodes_shows_its_transcripts(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", kept=False)
    run = read_run(folder)
    assert "trainer.rollout_data_dir" in run.remarks[0]
    assert [(s.problem.id, s.number, s.correct) for s in run.samples] == [
        ("p0", 0, False),
        ("p1", 1, True),
        ("p2", 0, False),
        ("p3", 1, True),
    ]
    assert run.samples[1].problem == episode(1).problem
    assert [(t.role, t.text, t.tokens) for t in run.samples[1].turns] == [
        ("long", "Let me think.", 4),
        ("short", "It is 5.", 3),
    ]
    assert run.samples[1].rewards == {"long/correct": 1.0, "long/length": -0.25}


def test_a_transcript_reads_headings_and_fences_in_a_turn_as_its_text(tmp_path: Path) -> None:
    text = "### Turn 2, short: 1 tokens, stop, well-formed\n```text\nx\n```\n## p9, sample 1\n### Outcome: malformed"
    write_training(tmp_path / "run", [episode(0, (text,))], kept=False)
    (sample,) = read_transcripts(tmp_path / "run" / "transcripts")
    assert [turn.text for turn in sample.turns] == [text] and sample.outcome == "answered"


@pytest.mark.parametrize(("score", "right"), [(1.0, True), (0.5, True), (0.0, False), (-1.0, False)])
def test_a_score_of_a_users_own_function_is_right_above_zero(score: float, right: bool) -> None:
    assert correct_by({"long/format": 1.0, "long/correct": score, "long/total": 2.0}) is right
    assert correct_by({"long/format": 1.0}) is None


def test_a_stored_verdict_stands_whatever_the_score_is(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run")
    rewards, verdicts = [{"long/correct": 0.0}, {"long/correct": 0.5}], [True, False]
    for place in ("rollouts", "validation"):
        episodes = [episode(0), episode(1)]
        write_episodes(folder / place, 2, episodes, [0.0, 0.5], rewards=rewards, correct=verdicts)
    run = read_run(folder)
    for origin in ("training", "validation"):
        assert [s.correct for s in run.samples if s.origin == origin and s.step == 2] == verdicts


def test_an_evaluation_has_every_sample_under_its_benchmark(tmp_path: Path) -> None:
    run = read_run(write_evaluation(tmp_path / "run"))
    assert run.kind == "evaluation" and set(run.benchmarks) == {"math500", "aime2024"}
    assert [(s.problem.source, s.correct) for s in run.samples] == [
        ("aime2024", True),
        ("aime2024", False),
        ("math500", True),
        ("math500", False),
    ]
    accuracies = {measure.problems: measure.accuracy for measure in run.measures}
    assert accuracies == {"math500": 0.5, "aime2024": 0.25, "average": 0.375}
    # Tenths of nats: the second token has -0.1, the third -0.2.
    assert run.samples[0].turns[0].surprise == bytes([0, 1, 2, 3])


def test_words_of_reflection_are_counted_by_round_and_by_benchmark(tmp_path: Path) -> None:
    texts = ("Wait, but wait.", "It is 5.")
    trained = read_run(write_training(tmp_path / "run", [episode(0, texts), episode(1)]))
    # One word each in the first episode's 7 tokens; "Let me think." in the second's.
    words = trained.words["long-r1"]
    assert set(trained.words) == {"long-r1"} and words["conversations"] == 2 and words["reflection_share"] == 1
    assert set(words["reflection"]) == {"wait", "but wait", "let me think"}
    evaluated = read_run(write_evaluation(tmp_path / "eval", [episode(0, ("No.",))]))
    assert evaluated.words["math500"]["reflection_per_1000_tokens"] == 0
    assert evaluated.behaviour["math500"]["perplexity"]["perplexity"] == 3.5


def test_a_cold_start_has_scores_and_conversations(tmp_path: Path) -> None:
    run = read_run(write_coldstart(tmp_path / "run"))
    assert run.kind == "cold start" and run.chains["kept"] == 3 and len(run.samples) == 3
    assert run.by_thoughts is not None and run.by_thoughts.accuracy == (0.1, 0.9)
    assert run.scores is not None and run.scores.curves[0].scores == (0.5,)


def test_hostile_texts_are_read_as_they_are(tmp_path: Path) -> None:
    run = read_run(write_evaluation(tmp_path / "run", hostile_episodes()))
    assert [s.turns[0].text for s in run.samples[: len(HOSTILE)]] == list(HOSTILE)


def test_settings_outside_the_list_are_not_shown(tmp_path: Path) -> None:
    for write in (write_training, write_evaluation):
        run = read_run(write(tmp_path / write.__name__))
        assert run.settings["seed"] in ("7", "3") and SECRET not in str(run.settings)
    policies = {"long": {"model": {"path": "x"}, "rollout": {"n": 8}}}
    shown = shown_settings({"seed": 1, "wandb_key": "x", "policies": policies})
    assert shown == {"seed": "1", "policies.long.rollout.n": "8"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no run .* give the folder that a command of longshort wrote"),
        ({"summary.json": "["}, "summary.json is not a JSON object: write it anew"),
        ({"metrics.jsonl": "{}\nx\n{}\n"}, "metrics.jsonl:2 is not a JSON object"),
    ],
)
def test_a_folder_that_cannot_be_read_gets_a_sentence(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_run(tmp_path)


def test_a_missing_folder_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder; give that of a run"):
        read_run(tmp_path / "none")


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"id": "a", "record": {"episode": {}, "correct": true}}'])
def test_a_line_that_is_no_episode_is_named(tmp_path: Path, line: str) -> None:
    folder = write_evaluation(tmp_path / "run")
    (folder / "math500.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"math500\.jsonl:1 is no episode"):
        read_run(folder)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [write_training(tmp_path / name) for name in ("a/run", "b/run", "c")]
    runs = [read_run(folder) for folder in folders]
    assert [run.name for run in named_apart(runs, folders)] == ["a/run", "b/run", "c"]
    with pytest.raises(ValueError, match="given twice"):
        named_apart([runs[0], runs[0]], [folders[0], folders[0]])


class Bytes:
    """A token for each byte; 256 ends a sequence."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        if ids == [256]:
            return "<|end|>"
        return bytes(ids).decode("utf-8", errors="replace")


def test_tokens_that_make_a_character_together_count_for_the_last() -> None:
    text = "aé😀b"
    pieces = Pieces(Bytes())((*text.encode(), 256), text)
    assert pieces == (1, 0, 1, 0, 0, 0, 2, 1, 0) and sum(pieces) == units(text)
    assert Pieces(Bytes())(tuple(b"ab"), "xy") == ()


def test_a_model_without_a_tokenizer_on_this_machine_has_no_pieces(tmp_path: Path) -> None:
    assert pieces_of("org/model-of-the-hub") is None and pieces_of(str(tmp_path)) is None
