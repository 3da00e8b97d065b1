from sft_core.environment import configure_environment

configure_environment()
