"""Values that must not be in anything that a run writes."""

# In the environment, by name.
PLANTED = {
    "WANDB_API_KEY": "planted0wandb0key0123456789abcdef012345678",
    "HF_TOKEN": "hf_planted0token0123456789",
    "OPENAI_API_KEY": "sk-planted-openai-0123456789",
}
# In the settings of a run.
OF_ENGINES = "planted-in-the-settings-0123456789"
SETTING = f"+actor_rollout_ref.rollout.engine_kwargs.vllm.api_key={OF_ENGINES}"
SEARCHED = {**PLANTED, "engine_kwargs.vllm.api_key": OF_ENGINES}
