"""A simulated provider, LiteLLM, Portkey and Freeway as child processes, each bounded in time even if this one dies."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

LIFETIME_S = 300
START_LIMIT_S = 90
SERVING = re.compile(r"(http://127\.0\.0\.1:\d+)")

# What the simulated provider offers. It speaks as Groq does, and takes any key that was not revoked.
FACTS = """
name = "The provider behind"
dialect = "openai-chat"
headers = [
  { name = "x-ratelimit-remaining-requests", says = "remaining", metric = "requests", window = "day" },
  { name = "x-ratelimit-reset-requests", says = "reset", metric = "requests", window = "day", format = "duration" },
]

[[models]]
id = "small-1"
context = 4096

[[models]]
id = "large-1"
context = 100000

[[models]]
id = "azure-1"

# For faults that are to meet nobody else.
[[models]]
id = "fragile-401"

[[models]]
id = "fragile-429"

[[models]]
id = "fragile-503"

[[models]]
id = "once-429"

[[models]]
id = "once-503"

# One request a day, for each way that leads there.
[[models]]
id = "tight-1"
limits = [{ metric = "requests", window = "day", amount = 1, reset = "bucket" }]

[[models]]
id = "tight-2"
limits = [{ metric = "requests", window = "day", amount = 1, reset = "bucket" }]

[[models]]
id = "tight-3"
limits = [{ metric = "requests", window = "day", amount = 1, reset = "bucket" }]
"""


@dataclass
class Running:
    """A process that serves at an address."""

    process: subprocess.Popen
    address: str

    @property
    def base_url(self):
        return f"{self.address}/v1"

    def stop(self, how=signal.SIGTERM):
        """Ends it, and what started it with a bound of time: both are one group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(timeout=30)


@dataclass
class Provider(Running):
    """The simulated provider, seen from its control routes."""

    def set_faults(self, *faults):
        self._call("/sim/faults", list(faults))

    def revoke(self, key):
        self._call("/sim/revoke", {"key": key})

    def log(self):
        return self._call("/sim/log")

    def keys(self):
        """The key of each request for an answer, in order: it tells which gateway sent it."""
        entries = [entry for entry in self.log() if "chat/completions" in entry["path"]]
        return [entry["key"] or dict(entry["headers"]).get("api-key") for entry in entries]

    def _call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}{path}", data=data), timeout=10) as answer:
            return json.load(answer)


class Processes:
    """Starts processes and stops them all at the end."""

    def __init__(self):
        self._running = []
        self._folder = tempfile.TemporaryDirectory(prefix="freeway-gateways-")

    def provider(self):
        """A simulated provider."""
        process, log = self._start([os.environ["SIM_BIN"], "groq", "127.0.0.1:0", str(self._write("facts.toml", FACTS))])
        return self._keep(Provider(process, self._address(process, log, "")))

    def litellm(self, config, **files):
        """LiteLLM's proxy with this configuration; `files` are Python modules beside it."""
        for name, text in files.items():
            self._write(f"{name}.py", text)
        path = self._write("litellm.json", json.dumps(config))
        command = [os.environ["LITELLM_BIN"], "--config", str(path), "--host", "127.0.0.1", "--port", "0"]
        # Else it would fetch its price list from the internet.
        process, log = self._start([*command, "--telemetry", "False"], LITELLM_LOCAL_MODEL_COST_MAP="True")
        return self._keep(Running(process, self._address(process, log, "Uvicorn running on")))

    def portkey(self):
        """Portkey's gateway, which is configured by the headers of each request."""
        script, loopback = os.environ["PORTKEY_SCRIPT"], os.environ["LOOPBACK_SCRIPT"]
        command = ["node", "--require", loopback, script, "--headless", "--port=0"]
        process, log = self._start(command, NODE_ENV="production")
        return self._keep(Running(process, self._address(process, log, "listening on")))

    def freeway(self, config):
        """The gateway under test with this configuration."""
        path = self._write("freeway.toml", config)
        process, log = self._start([os.environ["FREEWAY_BIN"], "serve", "--log", "error", "--config", str(path)])
        return self._keep(Running(process, self._address(process, log, "Point an OpenAI client at")))

    def stop(self):
        for running in reversed(self._running):
            running.stop()
        self._folder.cleanup()

    def _write(self, name, text):
        path = Path(self._folder.name, f"{len(self._running)}", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def _start(self, command, **variables):
        log = Path(self._folder.name, f"{len(self._running)}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["timeout", str(LIFETIME_S), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                # A group of its own, so that killing it leaves no child behind.
                start_new_session=True,
            )
        return process, log

    def _address(self, process, log, before):
        """The address that the first line with these words names."""
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            for line in log.read_text(errors="replace").splitlines():
                if before in line and (found := SERVING.search(line)):
                    return found[1]
            if process.poll() is not None:
                break
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        raise RuntimeError(f"{process.args[2]} did not come up:\n{log.read_text(errors='replace')[-2000:]}")

    def _keep(self, running):
        self._running.append(running)
        return running
