"""Length rewards by name, one file each: LM of equation (9) of Long⊗Short (arXiv 2505.11827) and what may replace it.

The total of an answer is eta * correct + lambda * format + mu * LM. Each class says which eta and mu give its paper's
reward, with lambda = 0. :func:`make_length_reward` makes one; :func:`register` adds a file of one's own.
"""

from longshort.length_rewards.base import GroupReward, LengthReward
from longshort.length_rewards.clip import Clip
from longshort.length_rewards.dapo_overlong import DapoOverlong
from longshort.length_rewards.group import Group
from longshort.length_rewards.grpo_lambda import GrpoLambda
from longshort.length_rewards.kimi import Kimi, kimi_length_rewards
from longshort.length_rewards.l1_exact import L1Exact
from longshort.length_rewards.l1_max import L1Max
from longshort.length_rewards.laser import Laser
from longshort.length_rewards.laser_d import LaserD
from longshort.length_rewards.none import NoLengthReward
from longshort.length_rewards.registry import LENGTH_REWARDS, make_length_reward, register
from longshort.length_rewards.turn_count import TurnCount

__all__ = [
    "LENGTH_REWARDS",
    "Clip",
    "DapoOverlong",
    "Group",
    "GroupReward",
    "GrpoLambda",
    "Kimi",
    "L1Exact",
    "L1Max",
    "Laser",
    "LaserD",
    "LengthReward",
    "NoLengthReward",
    "TurnCount",
    "kimi_length_rewards",
    "make_length_reward",
    "register",
]
