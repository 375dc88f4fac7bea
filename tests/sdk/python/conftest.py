"""Gateways that tests share."""

import pytest
from openai import OpenAI

from gateways import Gateways, configuration


@pytest.fixture(scope="session")
def gateways():
    """To start more; all are stopped at the end."""
    started = Gateways()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def sandbox(gateways):
    """Four simulated providers with the limits of their free tiers."""
    return gateways.sandbox()


@pytest.fixture(scope="session")
def lab_upstream(gateways):
    return gateways.upstream()


@pytest.fixture(scope="session")
def lab(gateways, lab_upstream):
    """One simulated provider without limits, as two accounts."""
    accounts = {"lab-a": (lab_upstream, []), "lab-b": (lab_upstream, [])}
    return gateways.serve(configuration(accounts, {"lab": ["lab-a/small-1", "lab-b/small-1"]}))


@pytest.fixture(scope="session")
def client(lab):
    with OpenAI(base_url=lab.base_url, api_key="unused", max_retries=0, timeout=15) as made:
        yield made


@pytest.fixture(scope="session")
def sandbox_client(sandbox):
    with OpenAI(base_url=sandbox.base_url, api_key="unused", max_retries=0, timeout=15) as made:
        yield made
