"""A pair as one model: an OpenAI-compatible server, and a conversation in the terminal.

A request becomes prompts (:mod:`.prompts`), limits (:mod:`.budget`) and an episode, which the same controller plays as
in training (:mod:`.play`); what its listener hears becomes a reply (:mod:`.reply`).
"""
