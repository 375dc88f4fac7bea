"""Freeway as the OpenAI SDK for Python sees it."""

import asyncio
import json
import time
from typing import Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from gateways import configuration

# Each simulated provider has a way of its own to end a stream.
SANDBOX_MODELS = [
    "groq/openai/gpt-oss-20b",
    "gemini/gemini-3.1-flash-lite",
    "openrouter/openai/gpt-oss-20b:free",
    "mistral/mistral-small-2603",
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Place(BaseModel):
    city: str
    kind: Literal["town", "village"]
    inhabitants: int
    twins: list[str]


def say(text):
    return [{"role": "user", "content": text}]


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- Answers


@pytest.mark.parametrize("model", [*SANDBOX_MODELS, "smart", "auto"])
def test_chat(sandbox_client, model):
    answer = sandbox_client.chat.completions.create(model=model, messages=say("the tide is out"))
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == f"{answer.model} heard: the tide is out"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    if "/" in model:
        assert answer.model == model.split("/", 1)[1]


def test_text_survives_in_every_script(client):
    text = 'naïve “quotes” \\ "escaped" \t 日本語 🦀 \u2028 end'
    answer = client.chat.completions.create(model="lab", messages=say(text))
    assert answer.choices[0].message.content == f"small-1 heard: {text}"
    streamed = client.chat.completions.create(model="lab", messages=say(text), stream=True)
    assert text_of(streamed) == f"small-1 heard: {text}"


def test_the_last_user_message_is_answered(client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "heard"},
        {"role": "user", "content": "second"},
    ]
    answer = client.chat.completions.create(model="lab", messages=messages, temperature=0.3, user="u-1")
    assert answer.choices[0].message.content == "small-1 heard: second"


def test_an_output_cap_is_passed_on(client):
    answer = client.chat.completions.create(model="lab", messages=say("word " * 50), max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_images(client, sandbox_client):
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    messages = [{"role": "user", "content": parts}]
    answer = client.chat.completions.create(model="lab", messages=messages)
    assert answer.choices[0].message.content == "small-1 heard: what is this? (and 2 images)"
    # `auto` has to find a model that can see.
    raw = sandbox_client.chat.completions.with_raw_response.create(model="auto", messages=messages)
    assert "(and 2 images)" in raw.parse().choices[0].message.content
    served = f"{raw.headers['x-freeway-provider']}/{raw.headers['x-freeway-model']}"
    known = sandbox_client.models.with_raw_response.list().http_response.json()["data"]
    assert "vision" in next(model for model in known if model["id"] == served)["freeway"]["features"]


def test_two_choices(client):
    answer = client.chat.completions.create(model="lab", messages=say("twice"), n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content == "small-1 heard: twice"
    assert answer.choices[1].message.content == "small-1 heard: twice (choice 1)"


def test_two_choices_streamed(client):
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="lab", messages=say("twice over"), n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "small-1 heard: twice over", 1: "small-1 heard: twice over (choice 1)"}


def test_logprobs(client, sandbox_client):
    answer = client.chat.completions.create(model="lab", messages=say("how sure"), logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == "small-1 heard: how sure"
    assert all(token.logprob < 0 for token in tokens)
    # groq and mistral are known to refuse the field, so the request has to go elsewhere.
    raw = sandbox_client.chat.completions.with_raw_response.create(model="smart", messages=say("x"), logprobs=True)
    assert raw.headers["x-freeway-provider"] not in ("groq", "mistral")
    assert raw.parse().choices[0].logprobs.content


def test_response_headers(sandbox_client):
    raw = sandbox_client.chat.completions.with_raw_response.create(model=SANDBOX_MODELS[0], messages=say("hello"))
    assert raw.headers["x-freeway-provider"] == "groq"
    assert raw.headers["x-freeway-model"] == "openai/gpt-oss-20b"
    assert raw.headers["x-freeway-tier"] == "standard"
    assert raw.headers["x-freeway-attempts"] == "1"
    assert raw.headers["x-freeway-request-id"].startswith("req_")
    # What the SDK shows as the request's id is what `freeway explain` takes.
    assert raw.parse()._request_id == raw.headers["x-freeway-request-id"]


# --- Bytes that pass untouched


def test_unknown_fields_and_long_numbers_keep_their_digits(client):
    raw = client.chat.completions.with_raw_response.create(
        model="lab",
        messages=say("digits"),
        seed=12345678901234567890123,
        extra_body={"zebra": 123456789012345678901234567890, "nested": {"deep": [1, {"x": -98765432109876543210}]}},
    )
    text = raw.http_response.text
    assert '"zebra":123456789012345678901234567890' in text
    assert '"seed":12345678901234567890123' in text
    assert "-98765432109876543210" in text
    assert raw.parse().model_extra["echo"]["nested"] == {"deep": [1, {"x": -98765432109876543210}]}


def test_only_the_models_name_is_changed_on_the_way_up(client, lab_upstream):
    raw = client.chat.completions.with_raw_response.create(
        model="lab-a/small-1",
        messages=say("bytes \u00e9 🦀 of mine"),
        extra_body={"anything": {"b": 2, "a": [1.0, 1e-7, None]}, "empty": {}},
    )
    sent = raw.http_request.content
    arrived = [entry["body"] for entry in lab_upstream.log() if "of mine" in entry["body"]]
    assert len(arrived) == 1
    assert arrived[0].encode() == sent.replace(b'"lab-a/small-1"', b'"small-1"')


def test_the_clients_key_stays_here(client, lab_upstream):
    client.chat.completions.create(model="lab", messages=say("whose key"))
    entry = next(entry for entry in lab_upstream.log() if "whose key" in entry["body"])
    assert dict(entry["headers"])["authorization"] == "Bearer sk-test-llamacpp"
    assert "unused" not in json.dumps(entry)


# --- Streams


@pytest.mark.parametrize("model", SANDBOX_MODELS)
def test_stream(sandbox_client, model):
    answer = sandbox_client.chat.completions.create(model=model, messages=say("a b c d"), stream=True)
    chunks = list(answer)
    assert text_of(chunks) == f"{model.split('/', 1)[1]} heard: a b c d"
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) >= 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("model", SANDBOX_MODELS)
def test_a_stream_has_no_chunk_of_usage_unasked(sandbox_client, model):
    # A client that did not ask reads `chunk.choices[0]` without looking.
    answer = sandbox_client.chat.completions.create(model=model, messages=say("a b c"), stream=True)
    chunks = list(answer)
    assert text_of(chunks).endswith("heard: a b c")
    assert [chunk for chunk in chunks if not chunk.choices] == []


@pytest.mark.parametrize("model", SANDBOX_MODELS)
def test_a_stream_with_usage(sandbox_client, model):
    chunks = list(
        sandbox_client.chat.completions.create(
            model=model, messages=say("a b c"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert text_of(chunks).endswith("heard: a b c")
    with_usage = [chunk for chunk in chunks if chunk.usage]
    assert with_usage == [chunks[-1]]
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens


def test_a_stream_arrives_piece_by_piece(gateways):
    upstream = gateways.upstream(first_byte_ms=5, pace_ms=100)
    gateway = gateways.serve(configuration({"lab-a": (upstream, [])}))
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        answer = client.chat.completions.create(model="small-1", messages=say("1 2 3 4 5 6"), stream=True)
        times = [time.monotonic() for chunk in answer if chunk.choices and chunk.choices[0].delta.content]
    assert len(times) == 8
    # 700 ms lie between the first and the last; what is held back arrives closer together.
    assert times[-1] - times[0] > 0.5


def test_a_stream_that_is_left_early(client):
    with client.chat.completions.create(model="lab", messages=say("word " * 200), stream=True) as answer:
        assert next(iter(answer)).choices[0].delta.role == "assistant"
    answer = client.chat.completions.create(model="lab", messages=say("and again"))
    assert answer.choices[0].message.content == "small-1 heard: and again"


def test_headers_of_a_stream(client):
    raw = client.chat.completions.with_raw_response.create(model="lab-b/small-1", messages=say("x"), stream=True)
    assert raw.headers["x-freeway-provider"] == "lab-b"
    assert raw.headers["x-freeway-request-id"].startswith("req_")
    assert text_of(raw.parse()) == "small-1 heard: x"


def test_the_stream_helper(client):
    with client.chat.completions.stream(
        model="lab", messages=say("help me"), stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 1
    assert kinds.count("content.delta") >= 3
    assert final.choices[0].message.content == "small-1 heard: help me"
    assert final.usage.total_tokens > 0


# --- Tools


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-20b", "mistral/devstral-2512", "smart"])
def test_a_tool_is_called_and_its_result_read(sandbox_client, model):
    messages = say("Paris")
    answer = sandbox_client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] == "Paris"
    assert isinstance(arguments["days"], int)
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answer = sandbox_client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == f"{answer.model} heard: Paris"


def test_a_streamed_tool_call(client):
    identity, name, arguments, finish = None, "", "", None
    for chunk in client.chat.completions.create(
        model="lab", messages=say('say "Zürich"'), tools=[WEATHER], tool_choice="required", stream=True
    ):
        finish = chunk.choices[0].finish_reason or finish
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            identity = identity or call.id
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert finish == "tool_calls"
    assert identity.startswith("call_")
    assert name == "weather"
    assert json.loads(arguments) == {"city": 'say "Zürich"', "days": 1}


def test_the_stream_helper_gathers_a_tool_call(client):
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    with client.chat.completions.stream(model="lab", messages=say("Rome"), tools=[strict]) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert call.function.parsed_arguments == {"city": "Rome", "days": 1}


def test_a_named_tool(client):
    other = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    answer = client.chat.completions.create(
        model="lab",
        messages=say("x"),
        tools=[WEATHER, other],
        tool_choice={"type": "function", "function": {"name": "clock"}},
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "clock"


# --- JSON


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-20b", "mistral/mistral-small-2603", "smart", "auto"])
def test_json_object(sandbox_client, model):
    answer = sandbox_client.chat.completions.create(
        model=model, messages=say("JSON please"), response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content)["said"] == "JSON please"


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-20b", "gemini/gemini-3.1-flash-lite", "auto"])
def test_json_schema(sandbox_client, model):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = sandbox_client.chat.completions.create(
        model=model,
        messages=say("Ada"),
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
    )
    value = json.loads(answer.choices[0].message.content)
    assert value["name"] == "Ada"
    assert isinstance(value["age"], int)


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-20b", "auto"])
def test_parse_into_a_class(sandbox_client, model):
    answer = sandbox_client.chat.completions.parse(model=model, messages=say("Bath"), response_format=Place)
    place = answer.choices[0].message.parsed
    assert isinstance(place, Place)
    assert place.city == "Bath"


def test_parse_a_stream_into_a_class(client):
    with client.chat.completions.stream(model="lab", messages=say("Bath"), response_format=Place) as stream:
        for _ in stream:
            pass
        place = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(place, Place)
    assert place.city == "Bath"


# --- Models


def test_models(sandbox_client):
    models = list(sandbox_client.models.list())
    ids = [model.id for model in models]
    assert {"auto", "smart", *SANDBOX_MODELS} <= set(ids)
    assert len(ids) == len(set(ids))
    assert all(model.object == "model" and model.owned_by for model in models)


@pytest.mark.parametrize("model", ["smart", "auto", *SANDBOX_MODELS])
def test_retrieve_a_model(sandbox_client, model):
    found = sandbox_client.models.retrieve(model)
    assert (found.id, found.object) == (model, "model")


def test_retrieve_an_unknown_model(sandbox_client):
    with pytest.raises(openai.NotFoundError) as caught:
        sandbox_client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"
    assert "no-such-model" in caught.value.message


# --- Errors


@pytest.fixture(scope="module")
def locked(gateways, lab_upstream):
    return gateways.serve(configuration({"lab-a": (lab_upstream, [])}, keys=["sk-test-operator"]))


def test_401(locked, lab_upstream):
    for key in ("sk-test-wrong", "sk-test-operato", "sk-test-operatorx"):
        with OpenAI(base_url=locked.base_url, api_key=key, max_retries=2) as client:
            for call in (
                lambda: client.chat.completions.create(model="small-1", messages=say("let me in")),
                lambda: client.chat.completions.create(model="small-1", messages=say("let me in"), stream=True),
                lambda: client.models.list(),
            ):
                with pytest.raises(openai.AuthenticationError) as caught:
                    call()
                assert caught.value.status_code == 401
                assert caught.value.code == "invalid_api_key"
                assert caught.value.request_id.startswith("req_")
                assert "sk-test" not in str(caught.value)
    assert not any("let me in" in entry["body"] for entry in lab_upstream.log())
    with OpenAI(base_url=locked.base_url, api_key="sk-test-operator", max_retries=0) as client:
        answer = client.chat.completions.create(model="small-1", messages=say("the right one"))
    assert answer.choices[0].message.content == "small-1 heard: the right one"


@pytest.mark.parametrize("stream", [False, True])
def test_404(client, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=say("x"), stream=stream)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.type == "invalid_request_error"
    assert "no-such-model" in caught.value.message


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("max_tokens", {"max_tokens": -3}),
        ("max_tokens", {"max_tokens": "many"}),
        ("max_completion_tokens", {"max_completion_tokens": 0}),
        ("stream", {"stream": "yes"}),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_400(client, param, body):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="lab", messages=say("x"), extra_body=body)
    assert caught.value.param == param
    assert param in caught.value.message
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "body"),
    [("messages", {"messages": []}), ("messages", {"messages": "hello"}), ("temperature", {"temperature": 9})],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_providers_own_400_comes_back(client, field, body):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="lab", messages=say("x"), extra_body=body)
    assert f"'{field}' must" in caught.value.message


def test_400_ambiguous_model(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="small-1", messages=say("x"))
    assert caught.value.param == "model"
    assert "lab-a/small-1" in caught.value.message
    assert "lab-b/small-1" in caught.value.message


def test_429_names_the_target_and_the_wait(gateways, lab_upstream):
    limit = '{ metric = "requests", window = "day", amount = 2, reset = "rolling" }'
    gateway = gateways.serve(configuration({"tiny": (lab_upstream, [limit])}, {"little": ["tiny/small-1"]}))
    # The SDK would wait and try again by itself if it were told to; a day is not worth its while.
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=2, timeout=10) as client:
        for turn in range(2):
            answer = client.chat.completions.create(model="little", messages=say(f"within the limit {turn}"))
            assert answer.choices[0].message.content == f"small-1 heard: within the limit {turn}"
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model="little", messages=say("beyond the limit"), stream=stream)
            assert caught.value.request.headers["x-stainless-retry-count"] == "0"
            assert caught.value.status_code == 429
            assert caught.value.code == "quota_exhausted"
            assert "tiny/small-1" in caught.value.message
            assert 86_000 < int(caught.value.response.headers["retry-after"]) <= 86_410
            assert caught.value.response.headers["x-should-retry"] == "false"
            assert caught.value.request_id == caught.value.response.headers["x-freeway-request-id"]
    assert not any("beyond the limit" in entry["body"] for entry in lab_upstream.log())


def test_a_providers_own_limit_is_never_overrun(gateways):
    gateway = gateways.sandbox("groq")

    async def ask(client, turn):
        try:
            answer = await client.chat.completions.create(model="smart", messages=say(f"turn {turn}"), max_tokens=20)
        except openai.RateLimitError as error:
            return error
        assert answer.choices[0].message.content == f"openai/gpt-oss-120b heard: turn {turn}"
        return None

    async def burst():
        async with AsyncOpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, turn) for turn in range(45)))

    refusals = [error for error in asyncio.run(burst()) if error]
    # The free tier has 30 requests a minute, refilled by one each 2 seconds.
    assert 25 <= 45 - len(refusals) <= 32
    for error in refusals:
        assert "groq/openai/gpt-oss-120b" in error.message
        assert 1 <= int(error.response.headers["retry-after"]) <= 60
    upstream = gateway.upstreams["groq"]
    assert upstream.overruns() == 0
    assert {entry["status"] for entry in upstream.log()} == {200}
    # Told to come back soon, the SDK does so by itself and is served.
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=3) as client:
        answer = client.chat.completions.create(model="smart", messages=say("patience"), max_tokens=20)
    assert answer.choices[0].message.content == "openai/gpt-oss-120b heard: patience"


# --- Many at once


def test_50_at_once(gateways):
    gateway = gateways.sandbox(first_byte_ms=30, pace_ms=5)

    async def ask(client, number):
        text = f"message number {number} of its own"
        if number % 2:
            answer = await client.chat.completions.create(model="auto", messages=say(text))
            return text, answer.model, answer.choices[0].message.content
        chunks = [c async for c in await client.chat.completions.create(model="auto", messages=say(text), stream=True)]
        return text, chunks[0].model, text_of(chunks)

    async def burst():
        async with AsyncOpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(50)))

    for text, model, heard in asyncio.run(burst()):
        assert heard == f"{model} heard: {text}"
    assert sum(len(upstream.log()) for upstream in gateway.upstreams.values()) == 50
    assert all(upstream.overruns() == 0 for upstream in gateway.upstreams.values())


# --- Failures upstream


@pytest.fixture
def pair(gateways):
    """A gateway that prefers one upstream and has another."""
    first, second = gateways.upstream(first_byte_ms=10, pace_ms=3), gateways.upstream(first_byte_ms=10, pace_ms=3)
    accounts = {"lab-a": (first, []), "lab-b": (second, [])}
    return gateways.serve(configuration(accounts, {"pair": ["lab-a/small-1", "lab-b/small-1"]})), first, second


async def traffic(base_url, midway, count=30, is_streamed=lambda number: number % 2 == 0):
    """Sends requests 10 ms apart; halfway calls `midway`. Who served each, in order."""

    async def ask(client, number):
        text = f"number {number} here"
        create = client.chat.completions.with_raw_response.create
        if is_streamed(number):
            raw = await create(model="pair", messages=say(text), stream=True)
            heard = text_of([chunk async for chunk in raw.parse()])
        else:
            raw = await create(model="pair", messages=say(text))
            heard = raw.parse().choices[0].message.content
        assert heard == f"small-1 heard: {text}"
        return raw.headers["x-freeway-provider"]

    async with AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=20) as client:
        running = []
        for number in range(count):
            if number == count // 2:
                await asyncio.to_thread(midway)
            running.append(asyncio.create_task(ask(client, number)))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*running)


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500},
        {"fault": "status", "status": 429, "headers": {"retry-after": "30"}},
        {"fault": "status", "status": 402},
        {"fault": "reset"},
        {"fault": "reset-mid-headers"},
        {"fault": "refuse"},
        {"fault": "empty"},
        {"fault": "empty-body"},
        {"fault": "error-in-200", "error": {"message": "overloaded", "code": 503}},
        {"fault": "html", "status": 502},
        {"fault": "html", "status": 200},
        {"fault": "cut", "after_events": 1},
    ],
    ids=lambda fault: f"{fault['fault']}-{fault.get('status', '')}".rstrip("-"),
)
def test_a_fault_amid_traffic_is_not_seen(pair, fault):
    gateway, first, _ = pair
    served = asyncio.run(traffic(gateway.base_url, lambda: first.set_faults({**fault, "times": 0})))
    assert served[0] == "lab-a"
    assert set(served[15:]) == {"lab-b"}


def test_half_a_plain_answer_is_not_seen(pair):
    gateway, first, _ = pair
    fault = {"fault": "truncated-json", "times": 0}
    served = asyncio.run(traffic(gateway.base_url, lambda: first.set_faults(fault), is_streamed=lambda _: False))
    assert served[0] == "lab-a"
    assert set(served[15:]) == {"lab-b"}


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "wrong-content-type"},
        {"fault": "no-done"},
        # The piece with the role, and that with the first word.
        {"fault": "malformed-event", "at": 0},
        {"fault": "malformed-event", "at": 1},
    ],
    ids=lambda fault: f"{fault['fault']}-{fault.get('at', '')}".rstrip("-"),
)
def test_the_text_is_whole_whoever_serves_it(pair, fault):
    gateway, first, _ = pair
    asyncio.run(traffic(gateway.base_url, lambda: first.set_faults({**fault, "times": 0})))


def test_a_revoked_key_amid_traffic_is_not_seen(pair):
    gateway, first, _ = pair
    served = asyncio.run(traffic(gateway.base_url, lambda: first.revoke("sk-test-llamacpp")))
    assert served[0] == "lab-a"
    assert set(served[15:]) == {"lab-b"}


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "cut", "after_events": 3},
        {"fault": "cut", "after_events": 3, "abrupt": True},
        {"fault": "reset-mid-body", "after_events": 3},
        {"fault": "truncated-json"},
    ],
    ids=lambda fault: fault["fault"] + ("-abrupt" if fault.get("abrupt") else ""),
)
def test_a_broken_stream_is_an_error_and_not_an_end(pair, fault):
    gateway, first, _ = pair
    first.set_faults({**fault, "times": 0})
    got = []
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        with pytest.raises(openai.APIError) as caught:
            for chunk in client.chat.completions.create(model="pair", messages=say("a b c d e f"), stream=True):
                got.append(chunk)
    assert "small-1 heard: a b c d e f".startswith(text_of(got))
    assert text_of(got) != ""
    assert not any(chunk.choices and chunk.choices[0].finish_reason for chunk in got)
    assert caught.value.message


def test_when_all_fail_the_error_names_each_target(pair):
    gateway, first, second = pair
    for upstream in (first, second):
        upstream.set_faults({"fault": "status", "status": 500, "times": 0})
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="pair", messages=say("x"))
    assert caught.value.status_code in (502, 503)
    assert "lab-a/small-1" in caught.value.message
    assert "lab-b/small-1" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "true"


def test_one_unreadable_event_after_content_does_not_end_the_stream(pair):
    """It is left out, with a comment in its place and a note in the ledger."""
    gateway, first, _ = pair
    first.set_faults({"fault": "malformed-event", "at": 3, "times": 0})
    with OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="pair", messages=say("a b c d e f"), stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert text_of(chunks).startswith("small-1 heard: ")
