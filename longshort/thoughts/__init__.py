"""The cold start of Long⊗Short (arXiv 2505.11827, sections 3 and 4.1): from a chain of thought to a conversation.

``steps`` and ``chunk`` divide a chain into thoughts, ``metric`` scores them, ``adaptive`` says which rollouts are still
needed, ``partition`` says which thoughts stay long, ``synthesis`` makes conversations. Nothing here needs torch, Ray or
an engine: models come in through :class:`longshort.generation.Generator`.
"""
