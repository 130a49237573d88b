"""Rounds: stages of training that each start from a checkpoint selected in the one before."""

from longshort.rounds.selection import SELECTION_RULES, Candidate, select_checkpoint

__all__ = ["SELECTION_RULES", "Candidate", "select_checkpoint"]
