"""Gateways and simulated providers as child processes, each bounded in time even if this one dies."""

import json
import os
import re
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

BINARY = os.environ["FREEWAY_BIN"]
LIFETIME_S = 120
# The simulated llama.cpp has no limits and takes any model's name.
UNLIMITED = "llamacpp"


@dataclass
class Upstream:
    """A simulated provider, seen from its control routes."""

    address: str

    @property
    def base_url(self):
        return f"http://{self.address}/v1"

    def set_faults(self, *faults):
        self._call("/sim/faults", list(faults))

    def revoke(self, key):
        self._call("/sim/revoke", {"key": key})

    def log(self):
        """The calls that came; what the gateway asks beside them, such as what is left of a quota, is left out."""
        return [entry for entry in self._call("/sim/log") if entry["method"] == "POST"]

    def overruns(self):
        return self._call("/sim/limits")["overruns"]

    def _call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data=data)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@dataclass
class Gateway:
    """A running gateway; `upstreams` by provider."""

    process: subprocess.Popen
    base_url: str
    upstreams: dict = field(default_factory=dict)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=10)
        self.process.stdout.close()


class Gateways:
    """Starts processes and stops them all at the end."""

    def __init__(self):
        self._running = []
        self._folder = tempfile.TemporaryDirectory(prefix="freeway-sdk-")

    def sandbox(self, *providers, first_byte_ms=5, pace_ms=1):
        """The gateway of `freeway sandbox`, with its simulated providers."""
        arguments = ["sandbox", "--json", "--listen", "127.0.0.1:0", "--seconds", str(LIFETIME_S)]
        arguments += ["--first-byte-ms", str(first_byte_ms), "--pace-ms", str(pace_ms)]
        if providers:
            arguments += ["--providers", ",".join(providers)]
        process = self._start(arguments)
        told = json.loads(self._line(process))
        upstreams = {name: Upstream(address) for name, address in told["upstreams"].items()}
        return self._keep(Gateway(process, told["base_url"], upstreams))

    def upstream(self, **paces):
        """One simulated provider without limits."""
        return self.sandbox(UNLIMITED, **paces).upstreams[UNLIMITED]

    def serve(self, config):
        """The gateway of `freeway serve` with this configuration."""
        file = Path(self._folder.name, f"{len(self._running)}.toml")
        file.write_text(config)
        process = self._start(["serve", "--log", "error", "--config", str(file)])
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+/v1)", self._line(process))):
            pass
        return self._keep(Gateway(process, found[1]))

    def stop(self):
        for gateway in self._running:
            gateway.stop()
        self._folder.cleanup()

    def _start(self, arguments):
        # `serve` has no bound of its own.
        command = ["timeout", str(LIFETIME_S), BINARY, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def _line(self, process):
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(process.args)} ended with {process.wait()} before it was ready")
        return line

    def _keep(self, gateway):
        self._running.append(gateway)
        return gateway


def configuration(accounts, aliases=None, keys=()):
    """A configuration of accounts `name -> (upstream, [limits])`, each with the one model `small-1`."""
    text = f'[server]\nlisten = "127.0.0.1:0"\nkeys = {json.dumps(list(keys))}\n\n[store]\nurl = "sqlite::memory:"\n'
    for name, (upstream, limits) in accounts.items():
        text += f"""
[providers.{name}]
base_url = "{upstream.base_url}"
dialect = "openai-chat"
keys = ["sk-test-{UNLIMITED}"]
cost = "free"
data = {{ trains = "no", retention_days = 0 }}

[[providers.{name}.models]]
id = "small-1"
quality = 2
limits = [{", ".join(limits)}]
"""
    for name, targets in (aliases or {}).items():
        text += f'\n[aliases.{name}]\ntargets = {json.dumps(targets)}\nstrategy = "ordered"\n'
    return text
