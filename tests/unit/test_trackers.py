"""wandb and tensorboard really write, offline.

Not proven: that a server takes what wandb wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from longshort.trackers import RUN_ID, make_trackers


def config(*logger: str):
    return OmegaConf.create(
        {
            "seed": 0,
            "trainer": {"logger": list(logger), "project_name": "p", "experiment_name": "e", "group_name": "g"},
        }
    )


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_auto_tracks_with_wandb_only_where_it_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        assert make_trackers(config("auto"), tmp_path, stack) == ()
    monkeypatch.setenv("WANDB_MODE", "offline")
    with ExitStack() as stack:
        (tracker,) = make_trackers(config("auto"), tmp_path, stack)
        tracker.log(1, {"accuracy": 0.5})
        tracker.transcripts(1, {"a/0": "hello"})
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in range(2):
        with ExitStack() as stack:
            (tracker,) = make_trackers(config("wandb"), tmp_path, stack)
            tracker.log(step, {"accuracy": 0.5})
    run_id = (tmp_path / RUN_ID).read_text()
    assert wandb_ids(tmp_path) == {run_id}


def test_each_round_is_a_wandb_run_of_its_own_and_goes_on_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for rounds in ((0, 1), (1,)):
        with ExitStack() as stack:
            (tracker,) = make_trackers(config("wandb"), tmp_path, stack)
            for number in rounds:
                tracker.begin_round(number, f"round {number}")
                tracker.log(number, {"accuracy": 0.5})
    run_id = (tmp_path / RUN_ID).read_text()
    assert wandb_ids(tmp_path) == {f"{run_id}-1", f"{run_id}-2"}


TRACKED = """
import sys
from contextlib import ExitStack
from pathlib import Path
import psutil
from longshort.trackers import make_trackers
from test_trackers import config
with ExitStack() as stack:
    (tracker,) = make_trackers(config("wandb"), Path(sys.argv[1]), stack)
    for number, name in enumerate(sys.argv[2:]):
        tracker.begin_round(number, name)
        tracker.log(2 * number, {"accuracy": 0.5})
        if name == "dies":
            for child in psutil.Process().children(recursive=True):
                child.kill()
                child.wait()
        tracker.log(2 * number + 1, {"accuracy": 0.6})
"""


def track(folder: Path, variables: Mapping[str, str], *rounds: str) -> str:
    """What wandb and we say of rounds that are tracked in a process of their own."""
    # Not the helper process of another test's wandb.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-c", TRACKED, str(folder), *rounds]
    environment = {**own, "WANDB_API_KEY": "0" * 40, **variables}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "0" * 40 not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_server_that_cannot_be_reached_costs_nothing_that_was_logged(tmp_path: Path) -> None:
    # Nothing listens there; wandb would try for a minute and a half.
    said = track(tmp_path, {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "3"}, "")
    assert "wandb cannot be used" in said and f"wandb sync {tmp_path}/wandb/offline-*" in said
    assert wandb_ids(tmp_path) == {(tmp_path / RUN_ID).read_text()}


def test_the_loss_of_wandbs_helper_costs_the_tracking_of_a_round_only(tmp_path: Path) -> None:
    said = track(tmp_path, {"WANDB_MODE": "offline"}, "dies", "lives")
    assert said.count("wandb failed") == 1 and f"{tmp_path}/metrics.jsonl" in said
    run_id = (tmp_path / RUN_ID).read_text()
    assert wandb_ids(tmp_path) == {f"{run_id}-1", f"{run_id}-2"}


def test_the_end_does_not_wait_for_a_server_that_is_lost(tmp_path: Path) -> None:
    with wandb_server_that_is_lost() as address:
        said = track(tmp_path, {"WANDB_BASE_URL": address, "WANDB_FINISH_TIMEOUT": "2"}, "")
    assert "Timed out finishing run" in said
    assert list(tmp_path.glob("wandb/run-*/*.wandb"))


@contextmanager
def wandb_server_that_is_lost() -> Iterator[str]:
    """A fake: it lets runs begin, as wandb's does, and answers nothing after the first."""
    lost = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if lost.is_set() or self.path != "/graphql":
                self.send_error(503)
                return
            names = {"name": "run", "displayName": "run", "config": "{}"}
            project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
            begun = {"bucket": {"id": "r", **names, "project": project}, "inserted": True}
            begins = b"UpsertBucket" in asked
            answer = json.dumps({"data": {"upsertBucket": begun} if begins else {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            if begins:
                lost.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wandb_ids(folder: Path) -> set[str]:
    return {file.stem.removeprefix("run-") for file in folder.glob("wandb/offline-run-*/*.wandb")}


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with ExitStack() as stack:
        (tracker,) = make_trackers(config("tensorboard"), tmp_path, stack)
        for step in (1, 2):
            tracker.log(step, {"reward/mean": float(step)})
        tracker.transcripts(2, {"a/0": "hello"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 1.0), (2, 2.0)]
