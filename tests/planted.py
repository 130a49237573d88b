"""Values that must not be in anything that a run writes."""

PLANTED = {
    "WANDB_API_KEY": "planted0wandb0key0123456789abcdef012345678",
    "HF_TOKEN": "hf_planted0token0123456789",
    "OPENAI_API_KEY": "sk-planted-openai-0123456789",
}
