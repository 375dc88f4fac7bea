"""How the gateways are configured: LiteLLM by a file, Portkey by headers, Freeway in front of both."""

import json

MASTER_KEY = "sk-test-litellm"
BEHIND_LITELLM = "sk-test-behind-litellm"
BEHIND_PORTKEY = "sk-test-behind-portkey"
BEHIND_LITELLM_REVOCABLE = "sk-test-behind-litellm-revocable"
BEHIND_PORTKEY_REVOCABLE = "sk-test-behind-portkey-revocable"

# LiteLLM asks this for each key. It plays what else would need a database: keys with limits and budgets.
KEYS = f"""
from litellm import BudgetExceededError
from litellm.proxy._types import UserAPIKeyAuth

async def check(request, api_key):
    if api_key == "sk-test-spent":
        raise BudgetExceededError(current_cost=2.0, max_budget=1.0)
    if api_key == "sk-test-limited":
        return UserAPIKeyAuth(api_key=api_key, rpm_limit=1)
    if api_key == "{MASTER_KEY}":
        return UserAPIKeyAuth(api_key=api_key)
    raise ValueError("no such key")
"""


def litellm(provider, closed, keys=False):
    """LiteLLM in front of the provider, and of one that is down at the address `closed`.

    With `keys`, keys are checked by the module above instead of by its master key alone.
    """

    def model(name, behind=None, **more):
        params = {"model": behind or f"openai/{name}", "api_base": provider.base_url, "api_key": BEHIND_LITELLM, **more}
        return {"model_name": name, "litellm_params": params}

    per_token = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01}
    return {
        "model_list": [
            model("small-1"),
            model("large-1"),
            model("fragile-401"),
            model("fragile-429"),
            model("fragile-503"),
            model("once-429"),
            model("once-503"),
            model("tight-1"),
            model("azure-1", "azure/azure-1", api_base=provider.address, api_version="2024-06-01"),
            model("revocable-1", "openai/small-1", api_key=BEHIND_LITELLM_REVOCABLE),
            model("missing-1", "openai/no-such-model"),
            model("down-1", "openai/small-1", api_base=closed),
            model("costly-1", "openai/small-1", max_budget=0.000001, budget_duration="1d", **per_token),
        ],
        # Freeway does the retries.
        "litellm_settings": {"num_retries": 0, "request_timeout": 20},
        "router_settings": {"num_retries": 0},
        "general_settings": {"master_key": MASTER_KEY, **({"custom_auth": "keys.check"} if keys else {})},
    }


def freeway(accounts, aliases=None):
    """Freeway in front of the gateways: tables by account, targets by alias."""
    text = '[server]\nlisten = "127.0.0.1:0"\n\n[store]\nurl = "sqlite::memory:"\n'
    for table in accounts:
        text += f"\n{table}"
    for name, targets in (aliases or {}).items():
        text += f'\n[aliases.{name}]\ntargets = {json.dumps(targets)}\nstrategy = "ordered"\n'
    return text


def litellm_account(name, gateway, models, key=MASTER_KEY):
    """An account at LiteLLM."""
    return f"""[providers.{name}]
catalog = "litellm"
base_url = "{gateway.base_url}"
keys = ["{key}"]
cost = "free"
{_models(name, models)}"""


def portkey_account(name, gateway, models, host, key=BEHIND_PORTKEY, provider="openai", catalog="portkey"):
    """An account at Portkey. The key goes on to the provider behind."""
    return f"""[providers.{name}]
catalog = "{catalog}"
base_url = "{gateway.base_url}"
auth = {{ scheme = "bearer" }}
keys = ["{key}"]
cost = "free"
request_headers = {{ x-portkey-provider = "{provider}", x-portkey-custom-host = "{host}" }}
{_models(name, models)}"""


def _models(name, models):
    return "".join(f'[[providers.{name}.models]]\nid = "{model}"\n' for model in models)
