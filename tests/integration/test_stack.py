"""The whole stack on CPU: Ray, verl's FSDP2 engine, vLLM servers, weight sync, for a pair that differs in all it can.

Not proven here: that training makes a policy better (the demo measures it), anything on CUDA.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
import torch

from longshort import checkpoints
from longshort.episode import View
from longshort.generation import SamplingParams
from longshort.policy import Policy, Sample
from longshort.run import Run
from tests.killed_runs import engine_cores
from workers import process_group
from workers.errors import EngineDiedError, WorkerRaisedError
from workers.naming import run_id
from workers.node_processes import on_every_node
from workers.policy import RayPolicy
from workers.stacks import stacks_here

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROLES = ("long", "short")


async def scores(policy: Policy, view: View) -> tuple[float, ...]:
    return (await policy.score([view])).log_probs[0]


async def test_three_full_steps_on_mathematics_train_both_policies_from_the_same_episodes(run: Run) -> None:
    probes = {}
    for step in (1, 2, 3):
        result = await run.trainer.step(step)
        episodes = result.graded.episodes
        assert len(episodes) == 16
        for role in ROLES:
            views = [view for episode in episodes if (view := episode.view(role)) is not None]
            probes.setdefault(role, (views[0], await scores(run.trainer.policies[role], views[0])))
            assert result.metrics[f"{role}/trained_episodes"] == len(views)
            assert result.metrics[f"{role}/grad_norm"] > 0
            assert all(map(math.isfinite, (v for k, v in result.metrics.items() if k.startswith(role))))
            # Equal under the weights that sampled it: invariant 2.
            assert result.metrics[f"{role}/log_prob_gap_max"] < 1e-4
        assert result.metrics["reward/mu"] > 0
        for episode in episodes:
            for turn in episode.turns:
                assert len(turn.token_ids) == len(turn.log_probs) > 0
    for role, (view, before) in probes.items():
        after = await scores(run.trainer.policies[role], view)
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 1e-6, f"{role} did not learn"


async def test_a_partners_turn_reaches_the_reader_in_the_readers_own_tokens(run: Run) -> None:
    result = await run.trainer.player.play(run.trainer.order.take(1), 2, run.trainer.settings.sampling)
    for episode in result.episodes:
        for turn in episode.turns:
            (reader,) = set(ROLES) - {turn.role}
            ids = run.trainer.policies[reader].tokenizer.encode(turn.text, add_special_tokens=False)
            assert turn.ids_for(reader) == tuple(ids) != turn.ids_for(turn.role)


async def test_scoring_a_rollout_again_under_its_weights_gives_its_log_probs_back(run: Run) -> None:
    result = await run.trainer.player.play(run.trainer.order.take(2), 4, run.trainer.settings.sampling)
    for role in ROLES:
        views = [view for episode in result.episodes if (view := episode.view(role)) is not None]
        again = (await run.trainer.policies[role].score(views)).log_probs
        for view, row in zip(views, again, strict=True):
            for sampled, mine, theirs in zip(view.mask, view.log_probs, row, strict=True):
                assert not sampled or abs(mine - theirs) < 1e-4


async def test_engines_sample_with_the_actors_weights_only_after_a_sync(run: Run) -> None:
    role = "long"
    policy = run.trainer.policies[role]

    async def gap() -> float:
        played = await run.trainer.player.play(run.trainer.order.take(2), 2, run.trainer.settings.sampling)
        views = [view for episode in played.episodes if (view := episode.view(role)) is not None]
        rows = (await policy.score(views)).log_probs
        pairs = [p for v, row in zip(views, rows, strict=True) for p in zip(v.mask, v.log_probs, row, strict=True)]
        return max(abs(mine - theirs) for sampled, mine, theirs in pairs if sampled)

    played = await run.trainer.player.play(run.trainer.order.take(4), 4, run.trainer.settings.sampling)
    views = [view for episode in played.episodes if (view := episode.view(role)) is not None]
    old = (await policy.score(views)).log_probs
    reference = await policy.reference_scores(views)
    assert reference is not None
    rows = zip(views, old, reference.log_probs, strict=True)
    samples = [Sample(view, (-1.0) ** i, log_probs, ref) for i, (view, log_probs, ref) in enumerate(rows)]
    await policy.update(samples)
    assert await gap() > 1e-4, "the engines cannot know the new weights yet"
    await policy.sync_weights()
    assert await gap() < 1e-4


async def test_nothing_listens_beyond_loopback(run: Run) -> None:
    # The driver, Ray and its workers, engines, and the processes that grade.
    driver = psutil.Process(os.getpid())
    ours = {process.pid: process for process in (driver, *driver.children(recursive=True))}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    names = {ours[c.pid].name() for c in listening}
    assert {"gcs_server", "raylet"} <= names and any("vllm" in name.lower() for name in names), names
    beyond = {
        f"{ours[c.pid].name()} on {c.laddr.ip}"
        for c in listening
        if not ipaddress.ip_address(c.laddr.ip.removeprefix("::ffff:")).is_loopback
    }
    assert not beyond


async def test_an_error_of_a_trainer_names_its_policy_and_what_it_was(run: Run) -> None:
    policy = run.trainer.policies["short"]
    assert isinstance(policy, RayPolicy)
    with pytest.raises(WorkerRaisedError, match=r"^a training worker of policy 'short' failed: \w+Error: "):
        await policy._call("load_policy", 3)


@ray.remote
class Broken:
    def __init__(self) -> None:
        raise OSError("Address already in use")

    def ready(self) -> None: ...


async def test_so_does_one_of_its_constructor(run: Run) -> None:
    policy = run.trainer.policies["short"]
    assert isinstance(policy, RayPolicy)
    message = "^a training worker of policy 'short' failed: OSError: Address already in use$"
    with pytest.raises(WorkerRaisedError, match=message):
        await policy._ask(lambda: ray.get(Broken.options(num_cpus=0).remote().ready.remote()))


@ray.remote
class Rank:
    def __init__(self, rank: int, port: int) -> None:
        self.rank = rank
        group = {"RANK": rank, "WORLD_SIZE": 2, "WG_PREFIX": "met", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in group.items()})

    def meet(self) -> float:
        process_group.join("cpu")
        total = torch.tensor([self.rank + 1.0])
        torch.distributed.all_reduce(total)
        return total.item()


async def test_ranks_meet_where_their_port_was_taken_meanwhile(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ranks = [Rank.options(num_cpus=0).remote(rank, port) for rank in range(2)]
        assert await asyncio.gather(*[rank.meet.remote() for rank in ranks]) == [3.0, 3.0]
        for rank in ranks:
            ray.kill(rank)


async def test_other_users_of_the_machine_reach_neither_rays_files_nor_its_ports(run: Run) -> None:
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    above = [folder for folder in session.parents if folder.stat().st_mode & 0o077 == 0]
    assert above and session.stat().st_uid == above[-1].stat().st_uid == os.getuid()
    asked = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).internal_kv_keys(b'', None)"
    command = [sys.executable, "-c", asked, ray.get_runtime_context().gcs_address]
    answers = []
    for other in ({}, {"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        done = subprocess.run(command, env={**os.environ, **other}, capture_output=True, text=True, timeout=120)
        answers.append((done.returncode, "uthenticat" in done.stderr))
    assert answers == [(0, False), (1, True), (1, True)], "who has no token, or another, is refused"


async def test_planted_secrets_are_in_nothing_that_run_ray_and_engines_wrote(
    run: Run, planted_secrets: dict[str, str], tmp_path: Path
) -> None:
    await checkpoints.save(tmp_path, 1, run.learners, {})
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [f for folder in (run.folder, tmp_path, session) for f in folder.rglob("*") if f.is_file()]
    assert {"config.yaml", "manifest.json", "gcs_server.out"} <= {file.name for file in files}
    secrets = {**planted_secrets, "the token of this Ray": os.environ["RAY_AUTH_TOKEN"]}
    found = {str(f): name for f in files for name, value in secrets.items() if value.encode() in f.read_bytes()}
    assert not found


async def test_a_saved_policy_loads_in_transformers_and_back_into_the_actor(run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    played = await run.trainer.player.play(run.trainer.order.take(1), 4, run.trainer.settings.sampling)
    folder = await checkpoints.save(tmp_path, 3, run.learners, {"note": 1})
    assert not [
        file for file in folder.rglob("*") if file.suffix in {".pt", ".bin", ".pkl"} or file.name == ".metadata"
    ]
    for role in ROLES:
        policy = run.trainer.policies[role]
        view = next(view for episode in played.episodes if (view := episode.view(role)) is not None)
        before = await scores(policy, view)
        model = AutoModelForCausalLM.from_pretrained(folder / role / "huggingface", dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder / role / "huggingface")
        assert tokenizer.get_vocab() == policy.tokenizer.get_vocab()
        ids = torch.tensor([view.prompt_ids + view.response_ids])
        log_probs = torch.log_softmax(model(ids).logits[0].float(), -1)
        start = len(view.prompt_ids)
        mine = [log_probs[start + i - 1, token].item() for i, token in enumerate(view.response_ids)]
        assert max(abs(a - b) for a, b in zip(mine, before, strict=True)) < 1e-4
        await policy.update([Sample(view, 1.0, before, before)])
        changed = await scores(policy, view)
        assert changed != before
        await policy.load(folder / role)
        assert await scores(policy, view) == before
        # The optimiser came back too: the same update gives the same weights.
        await policy.update([Sample(view, 1.0, before, before)])
        assert await scores(policy, view) == pytest.approx(changed, abs=1e-6)
        await policy.load(folder / role)
        await policy.sync_weights()
    assert json.loads((folder / "state.json").read_text()) == {"step": 3, "note": 1}


async def test_all_processes_show_where_they_stand(run: Run) -> None:
    found = on_every_node(stacks_here, run_id())
    names = sorted(name.rsplit(" ", 1)[0] for stacks in found.values() for name in stacks)
    assert names == sorted(
        each
        for policy in ("long", "short")
        for each in (f"trainer {policy} 0", f"longshort_{policy}_server_0_0", f"vLLM {policy}-0")
    )
    assert all("File " in text for stacks in found.values() for text in stacks.values())


@pytest.mark.parametrize(("signal_of", "policy"), [(signal.SIGKILL, "short"), (signal.SIGSTOP, "long")])
async def test_a_lost_engine_comes_back_with_the_weights_of_the_moment(
    run: Run, signal_of: signal.Signals, policy: str
) -> None:
    await run.trainer.step(9)
    lost = run.trainer.policies[policy]
    prompt, params = (5, 6, 7, 8), SamplingParams(max_tokens=12, temperature=0.0)
    before, restarts = await lost.generator.generate(prompt, params, "before"), lost.engine_restarts
    for engine in (cores := engine_cores(os.getpid(), policy)):
        engine.send_signal(signal_of)
    assert cores
    after = await lost.generator.generate(prompt, params, "after")
    assert after.token_ids == before.token_ids
    assert after.log_probs == pytest.approx(before.log_probs, abs=1e-4)
    assert lost.engine_restarts == restarts + 1
    assert not [core for core in cores if core.is_running() and core.status() != psutil.STATUS_ZOMBIE]


async def test_an_engine_that_is_stopped_is_found_without_an_answer_of_its_core(run: Run) -> None:
    (replica,) = run.trainer.policies["long"].guard._engines
    await replica.ping(False, 10.0)
    (*_, core) = engine_cores(os.getpid(), "long")
    core.suspend()
    try:
        # As while it takes weights, when its core answers nothing.
        with pytest.raises(EngineDiedError, match="of the engine is stopped"):
            await replica.ping(False, 10.0)
    finally:
        core.resume()
    await replica.ping(True, 10.0)


async def test_a_step_whose_engine_dies_under_it_is_played_to_its_end(run: Run) -> None:
    step = asyncio.create_task(run.trainer.step(10))
    await asyncio.sleep(0.5)
    for engine in engine_cores(os.getpid(), "short"):
        engine.send_signal(signal.SIGKILL)
    result = await step
    assert len(result.graded.episodes) == len(result.rewards["long"])
    assert result.metrics["short/engine_restarts"] == 2.0


async def test_one_loss_more_than_is_allowed_ends_the_step_with_its_policys_name(run: Run) -> None:
    """Last in the file: the shared stack has lost an engine afterwards."""
    short = run.trainer.policies["short"]
    assert isinstance(short, RayPolicy)
    short.guard.restarts = short.guard.limits.max_engine_restarts
    for engine in engine_cores(os.getpid(), "short"):
        engine.send_signal(signal.SIGKILL)
    with pytest.raises(EngineDiedError, match=r"'short' died: .*max_engine_restarts"):
        await run.trainer.step(11)
