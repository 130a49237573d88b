"""The cold start as stages that a person runs one by one or together (arXiv 2505.11827, sections 2 to 4).

    problems ─► distill ─► chunk ─► score ─► synthesize ─► sft ─► a pair

Each stage writes its records into ``coldstart.folder`` and goes on where it was stopped (:mod:`longshort.stages`). What
they do with a chain is :mod:`longshort.thoughts`; here are engines, files, progress and counts.
"""
