"""Other gateways as upstreams: answers through each, their refusals, and failover between them."""

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import configurations as conf

MODELS = ["small-1", "large-1", "tight-1", "azure-1", "revocable-1", "missing-1", "down-1", "costly-1", "nobodys-1"]
MODELS += ["once-429", "once-503"]

# One for each fault that is played amid traffic: LiteLLM rests what has failed, whoever asks next.
FRAGILE = ["small-1", "fragile-401", "fragile-429", "fragile-503"]


@pytest.fixture(scope="session")
def freeway(processes, provider, closed, litellm, litellm_with_keys, portkey):
    """One gateway with an account for each thing that can go wrong: a pause of one must not hide another."""
    nowhere = "http://10.0.0.1/v1"
    accounts = [
        conf.litellm_account("litellm", litellm, MODELS),
        conf.litellm_account("litellm-wrong-key", litellm, ["small-1"], key="sk-test-wrong"),
        conf.litellm_account("litellm-spent", litellm_with_keys, ["small-1"], key="sk-test-spent"),
        conf.litellm_account("litellm-limited", litellm_with_keys, ["small-1"], key="sk-test-limited"),
        conf.litellm_account("litellm-unknown", litellm_with_keys, ["small-1"], key="sk-test-unknown"),
        conf.portkey_account("portkey", portkey, ["small-1", "large-1", "tight-2", "nobodys-1"], provider.base_url),
        conf.portkey_account(
            "portkey-revoked", portkey, ["small-1"], provider.base_url, key=conf.BEHIND_PORTKEY_REVOCABLE
        ),
        conf.portkey_account("portkey-down", portkey, ["small-1"], closed),
        conf.portkey_account("portkey-nowhere", portkey, ["small-1"], nowhere),
        # One provider behind, read by its own facts.
        conf.portkey_account(
            "groq-by-portkey", portkey, ["tight-3"], provider.base_url, "sk-test-by-groq", "groq", "groq"
        ),
    ]
    targets = [f"litellm/{model}" for model in MODELS]
    targets += [f"litellm-{name}/small-1" for name in ("wrong-key", "spent", "limited", "unknown")]
    targets += [f"portkey-{name}/small-1" for name in ("revoked", "down", "nowhere")]
    targets += ["portkey/small-1", "portkey/tight-2", "portkey/nobodys-1", "groq-by-portkey/tight-3"]
    aliases = {alias_of(target): [target, safe_beside(target)] for target in targets}
    aliases["larger"] = ["litellm/small-1", "portkey/large-1"]
    aliases["larger-too"] = ["portkey/small-1", "portkey/large-1"]
    return processes.freeway(conf.freeway(accounts, aliases))


def alias_of(target):
    return f"first-{target.replace('/', '-')}"


def safe_beside(target):
    """A target at the other gateway, or at least another model."""
    return "portkey/small-1" if target.startswith("litellm") else "portkey/large-1"


def ask(freeway, model, text="hello", **more):
    """One plain answer, with its headers; nothing is tried again by the SDK."""
    with OpenAI(base_url=freeway.base_url, api_key="unused", max_retries=0, timeout=30) as client:
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)


def stream(freeway, model, text, **more):
    """One streamed answer: its headers and its chunks."""
    with OpenAI(base_url=freeway.base_url, api_key="unused", max_retries=0, timeout=30) as client:
        messages = [{"role": "user", "content": text}]
        raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, stream=True, **more)
        return raw.headers, list(raw.parse())


def attempts(freeway, request):
    """What became of each attempt of a request: target, status, case. The ledger is written a moment later."""
    end = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"{freeway.address}/freeway/v1/requests/{request}", timeout=10) as answer:
                told = json.load(answer)["attempts"]
                return [(attempt["target"], attempt["status"], attempt["outcome"]) for attempt in told]
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > end:
                raise
            time.sleep(0.02)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- Answers


@pytest.mark.parametrize("gateway", ["litellm", "portkey"])
def test_chat(freeway, provider, tell, gateway):
    raw = ask(freeway, f"{gateway}/small-1", "the tide is out")
    answer = raw.parse()
    assert answer.choices[0].message.content == "small-1 heard: the tide is out"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert raw.headers["x-freeway-provider"] == gateway
    # The key that the provider saw is the one that only this gateway has.
    assert provider.keys()[-1] == {"litellm": conf.BEHIND_LITELLM, "portkey": conf.BEHIND_PORTKEY}[gateway]
    tell(gateway)


@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@pytest.mark.parametrize("gateway", ["litellm", "portkey"])
def test_stream(freeway, tell, gateway, usage):
    more = {"stream_options": {"include_usage": True}} if usage else {}
    headers, chunks = stream(freeway, f"{gateway}/small-1", "a b c d", **more)
    assert text_of(chunks) == "small-1 heard: a b c d"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    if usage:
        assert [chunk.usage.total_tokens > 0 for chunk in chunks if chunk.usage] == [True]
    else:
        # A client that did not ask reads `chunk.choices[0]` without looking.
        assert all(chunk.choices for chunk in chunks)
    assert headers["x-freeway-provider"] == gateway
    tell(gateway)


# --- Refusals

# What is asked first, the status that it answers with, and what that is taken for.
REFUSALS = [
    ("litellm-wrong-key/small-1", 400, "bad_key"),
    ("litellm-unknown/small-1", 401, "bad_key"),
    ("litellm-spent/small-1", 400, "budget"),
    ("litellm/missing-1", 404, "model_not_found"),
    ("litellm/nobodys-1", 400, "model_unknown"),
    ("litellm/down-1", 500, "behind_failed"),
    ("portkey/nobodys-1", 404, "model_not_found"),
    ("portkey-down/small-1", 500, "upstream_error"),
    ("portkey-nowhere/small-1", 400, "misconfigured"),
]
# The same for what answers once before it refuses.
LIMITS = [
    ("litellm/tight-1", 429, "rate_limit_behind"),
    ("litellm/costly-1", 429, "budget"),
    ("litellm-limited/small-1", 429, "rate_limit"),
    ("portkey/tight-2", 429, "rate_limit"),
    ("groq-by-portkey/tight-3", 429, "rate_limit"),
]


def check_saved(freeway, tell, raw, target, status, case):
    """The client has an answer from elsewhere, and the ledger knows why."""
    served = f"{raw.headers['x-freeway-provider']}/{raw.headers['x-freeway-model']}"
    assert served == safe_beside(target)
    assert raw.parse().choices[0].message.content.endswith("heard: hello")
    first, *_, last = attempts(freeway, raw.headers["x-freeway-request-id"])
    assert first == (target, status, case)
    assert last == (served, 200, "answered")
    tell(raw.headers["x-freeway-provider"])


@pytest.mark.parametrize(("target", "status", "case"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_refusal_is_read_rightly_and_not_seen(freeway, tell, target, status, case):
    check_saved(freeway, tell, ask(freeway, alias_of(target)), target, status, case)


@pytest.mark.parametrize(("target", "status", "case"), LIMITS, ids=[row[0] for row in LIMITS])
def test_a_limit_is_read_rightly_and_not_seen(freeway, tell, target, status, case):
    first = ask(freeway, target)
    assert first.headers["x-freeway-attempts"] == "1"
    # LiteLLM books what an answer cost a moment after it, so that a budget may let another one pass.
    end = time.monotonic() + 10
    while (raw := ask(freeway, alias_of(target))).headers["x-freeway-attempts"] == "1":
        assert case == "budget" and time.monotonic() < end
    check_saved(freeway, tell, raw, target, status, case)
    # Until it comes back, it is left alone.
    assert ask(freeway, alias_of(target)).headers["x-freeway-attempts"] == "1"


def test_a_key_that_is_refused_behind_portkey_is_freeways_own(freeway, provider, tell):
    provider.revoke(conf.BEHIND_PORTKEY_REVOCABLE)
    target = "portkey-revoked/small-1"
    check_saved(freeway, tell, ask(freeway, alias_of(target)), target, 401, "bad_key")


def test_a_key_that_is_refused_behind_litellm_is_litellms(freeway, provider, tell):
    target = "litellm/revocable-1"
    provider.revoke(conf.BEHIND_LITELLM_REVOCABLE)
    check_saved(freeway, tell, ask(freeway, alias_of(target)), target, 401, "bad_key_behind")
    with pytest.raises(openai.APIStatusError) as caught:
        ask(freeway, target)
    # Not an hour for the whole account, as for a bad key of its own.
    assert 500 < int(caught.value.response.headers["retry-after"]) <= 600
    assert ask(freeway, "litellm/small-1").headers["x-freeway-provider"] == "litellm"


def test_headers_that_litellm_passes_on_are_understood(freeway, provider):
    """The wait stands nowhere but in `llm_provider-retry-after`."""
    full = {"error": {"message": "Too much.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    limit = {"fault": "status", "status": 429, "body": full, "headers": {"retry-after": "77"}, "model": "azure-1"}
    provider.set_faults({**limit, "times": 0})
    with pytest.raises(openai.APIStatusError) as caught:
        ask(freeway, "litellm/azure-1")
    assert 60 < int(caught.value.response.headers["retry-after"]) <= 77


@pytest.mark.parametrize("alias", ["larger", "larger-too"], ids=["litellm", "portkey"])
def test_too_much_for_a_context_goes_to_a_larger_one(freeway, tell, alias):
    raw = ask(freeway, alias, max_tokens=9000)
    assert raw.parse().choices[0].message.content == "large-1 heard: hello"
    first, *_ = attempts(freeway, raw.headers["x-freeway-request-id"])
    assert first[1:] == (400, "context_too_long")
    tell("portkey")


@pytest.mark.parametrize("target", ["litellm/small-1", "portkey/small-1"])
def test_what_the_client_did_wrong_comes_back_in_the_providers_words(freeway, target):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(freeway, target, extra_body={"messages": []})
    assert "'messages' must hold at least one message" in caught.value.message


# --- Failover


@pytest.fixture(scope="module")
def spares(processes, provider, closed):
    """A LiteLLM and a Portkey that may be stopped."""
    return {"litellm": processes.litellm(conf.litellm(provider, closed)), "portkey": processes.portkey()}


@pytest.fixture
def pair(processes, provider, litellm, portkey, spares):
    """Starts a gateway that prefers one target and has another. Always a new one: pauses outlast a test."""

    def start(first, second):
        accounts = [
            conf.litellm_account("litellm", litellm, FRAGILE),
            conf.litellm_account("litellm-spare", spares["litellm"], ["small-1"]),
            conf.portkey_account("portkey", portkey, FRAGILE, provider.base_url),
            conf.portkey_account("portkey-spare", spares["portkey"], ["small-1"], provider.base_url),
        ]
        return processes.freeway(conf.freeway(accounts, {"pair": [first, second]}))

    return start


async def traffic(freeway, midway, streams=True):
    """Sends five requests one after the other, then more 20 ms apart. Meanwhile calls `midway`, and sends 20 more
    after that has returned.

    Gives who served each, in order. A request that fails raises.
    """

    async def asked(client, number):
        text = f"number {number} here"
        create = client.chat.completions.with_raw_response.create
        messages = [{"role": "user", "content": text}]
        if streams and number % 2:
            raw = await create(model="pair", messages=messages, stream=True)
            heard = text_of([chunk async for chunk in raw.parse()])
        else:
            raw = await create(model="pair", messages=messages)
            heard = raw.parse().choices[0].message.content
        assert heard == f"{raw.headers['x-freeway-model']} heard: {text}"
        return raw.headers["x-freeway-provider"]

    async with AsyncOpenAI(base_url=freeway.base_url, api_key="unused", max_retries=0, timeout=30) as client:
        # The first answers of a gateway that has just started take long.
        served = [await asked(client, number) for number in range(5)]
        running, event, left = [], None, 20
        while left:
            running.append(asyncio.create_task(asked(client, len(running))))
            await asyncio.sleep(0.02)
            if len(running) == 20:
                event = asyncio.create_task(asyncio.to_thread(midway))
            if event and event.done():
                left -= 1
        await event
        return served + await asyncio.gather(*running)


def check_moved(served, tell, first, second):
    assert served[:5] == [first] * 5
    assert served[-10:] == [second] * 10
    for gateway in served:
        tell(gateway)


@pytest.mark.parametrize("status", [401, 429, 503])
@pytest.mark.parametrize(("first", "second"), [("litellm", "portkey"), ("portkey", "litellm")])
def test_refusals_amid_traffic_are_not_seen(pair, provider, tell, first, second, status):
    """What the provider answers reaches Freeway in the words of the gateway between."""
    freeway = pair(f"{first}/fragile-{status}", f"{second}/small-1")
    fault = {"fault": "status", "status": status, "model": f"fragile-{status}", "times": 0}
    served = asyncio.run(traffic(freeway, lambda: provider.set_faults(fault)))
    check_moved(served, tell, first, second)


def test_litellm_stopped_amid_traffic_is_not_seen(pair, spares, tell):
    freeway = pair("litellm-spare/small-1", "portkey/small-1")
    served = asyncio.run(traffic(freeway, spares["litellm"].stop))
    check_moved(served, tell, "litellm-spare", "portkey")


def test_portkey_killed_amid_traffic_is_not_seen(pair, spares, tell):
    """Without streams: one that has begun and breaks off cannot be saved by anybody."""
    freeway = pair("portkey-spare/small-1", "litellm/small-1")
    served = asyncio.run(traffic(freeway, lambda: spares["portkey"].stop(signal.SIGKILL), streams=False))
    check_moved(served, tell, "portkey-spare", "litellm")


# --- What the document warns of


def test_a_stream_that_breaks_off_behind_portkey_is_an_error(freeway, provider):
    provider.set_faults({"fault": "cut", "after_events": 3})
    with pytest.raises(openai.APIError):
        stream(freeway, "portkey/small-1", "a b c d")


def test_a_stream_that_breaks_off_behind_litellm_looks_whole(freeway, provider):
    """LiteLLM ends it as if it were complete, so that nobody after it can know. The document says so."""
    provider.set_faults({"fault": "cut", "after_events": 3})
    _, chunks = stream(freeway, "litellm/small-1", "a b c d")
    assert text_of(chunks) == "small-1 heard: "
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


def test_portkey_changes_requests(freeway, provider):
    ask(freeway, "portkey/small-1", "how hot", temperature=9)
    assert json.loads(provider.log()[-1]["body"])["temperature"] == 2


@pytest.mark.parametrize("status", [429, 503])
def test_litellm_asks_once_if_told_so(freeway, provider, status):
    """Every attempt that the provider sees is one of Freeway's."""
    provider.set_faults({"fault": "status", "status": status, "model": f"once-{status}", "times": 0})
    before = len(provider.keys())
    with pytest.raises(openai.APIStatusError) as caught:
        ask(freeway, f"litellm/once-{status}")
    assert len(provider.keys()) - before == int(caught.value.response.headers["x-freeway-attempts"])


def configurations_of_the_document():
    text = (Path(__file__).parents[3] / "docs/other-gateways.md").read_text()
    return [block.split("```")[0] for block in text.split("```toml\n")[1:]]


@pytest.mark.parametrize("text", configurations_of_the_document(), ids=lambda text: text.split("]")[0].strip("["))
def test_the_configurations_of_the_document_are_taken(tmp_path, text):
    path = tmp_path / "freeway.toml"
    path.write_text(text)
    names = ["LITELLM_MASTER_KEY", "PROVIDER_KEY", "GROQ_API_KEY", "PORTKEY_API_KEY"]
    keys = {name: f"sk-test-{name.lower()}" for name in names}
    command = [os.environ["FREEWAY_BIN"], "check", "--config", str(path)]
    done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
