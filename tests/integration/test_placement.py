"""Device slots in a Ray of our own, without workers or engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from longshort.config import build_config
from workers import team
from workers.placement import make_pools

COUNTS = {"long": 1, "short": 1}


@pytest.fixture
def colocated_ray() -> Iterator[None]:
    team.start_ray(build_config("local", ["placement.mode=colocated"]))
    yield
    team.stop()


def test_colocated_policies_that_start_beside_each_other_share_one_reservation(colocated_ray: None) -> None:
    assert ray.cluster_resources()["GPU"] == 1
    pools = make_pools(list(COUNTS), "colocated", COUNTS, 1)
    with ThreadPoolExecutor() as threads:
        # As verl's worker groups do when they are made.
        groups = list(threads.map(lambda pool: pool.get_placement_groups(device_name="cpu"), pools.values()))
    assert groups[0] is groups[1]
    assert len(ray.util.placement_group_table()) == 1
