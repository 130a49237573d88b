"""How a model thinks, beside how well: words of reflection, phases of reasoning, perplexity."""
