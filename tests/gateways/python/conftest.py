"""The gateways that tests share, and at the end a word on what went through which."""

import socket
from collections import Counter

import pytest

import configurations
from processes import Processes

_served = Counter()


@pytest.fixture(scope="session")
def processes():
    """To start more; all are stopped at the end."""
    started = Processes()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def provider(processes):
    started = processes.provider()
    yield started
    _served.update(f"the provider, with the key {key}" for key in started.keys())


@pytest.fixture(autouse=True)
def no_faults(provider):
    """Each test begins with a provider that works."""
    provider.set_faults()


@pytest.fixture(scope="session")
def closed():
    """The address of a provider that is down: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.fixture(scope="session")
def litellm(processes, provider, closed):
    return processes.litellm(configurations.litellm(provider, closed))


@pytest.fixture(scope="session")
def litellm_with_keys(processes, provider, closed):
    """One that knows more keys than its master key."""
    return processes.litellm(configurations.litellm(provider, closed, keys=True), keys=configurations.KEYS)


@pytest.fixture(scope="session")
def portkey(processes):
    return processes.portkey()


@pytest.fixture(scope="session")
def tell():
    """Notes that an answer came through a gateway."""
    return lambda gateway: _served.update([f"Freeway, through {gateway}"])


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("answers and requests by the way they took")
    for way, count in sorted(_served.items()):
        terminalreporter.write_line(f"{count:5}  {way}")
