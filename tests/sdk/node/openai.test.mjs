// Freeway as the OpenAI SDK for Node sees it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { log, sandbox, serve, setFaults, stopAll, upstream } from "./gateways.mjs";

// Each simulated provider has a way of its own to end a stream.
const SANDBOX_MODELS = [
  "groq/openai/gpt-oss-20b",
  "gemini/gemini-3.1-flash-lite",
  "openrouter/openai/gpt-oss-20b:free",
  "mistral/mistral-small-2603",
];
const WEATHER = {
  type: "function",
  function: {
    name: "weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};

const connect = (gateway, options = {}) =>
  new OpenAI({ baseURL: gateway.baseURL, apiKey: "unused", maxRetries: 0, timeout: 15_000, ...options });
const say = (content) => [{ role: "user", content }];

async function gather(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

let labUpstream, free, lab;

before(async () => {
  labUpstream = await upstream();
  free = connect(await sandbox());
  const accounts = { "lab-a": { upstream: labUpstream }, "lab-b": { upstream: labUpstream } };
  lab = connect(await serve(accounts, { aliases: { lab: ["lab-a/small-1", "lab-b/small-1"] } }));
});

after(stopAll);

describe("answers", () => {
  for (const model of [...SANDBOX_MODELS, "smart", "auto"]) {
    test(`chat with ${model}`, async () => {
      const answer = await free.chat.completions.create({ model, messages: say("the tide is out") });
      assert.equal(answer.choices[0].message.content, `${answer.model} heard: the tide is out`);
      assert.equal(answer.choices[0].finish_reason, "stop");
      assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    });
  }

  test("text survives in every script", async () => {
    const text = 'naïve “quotes” \\ "escaped" \t 日本語 🦀 \u2028 end';
    const answer = await lab.chat.completions.create({ model: "lab", messages: say(text) });
    assert.equal(answer.choices[0].message.content, `small-1 heard: ${text}`);
    const streamed = await lab.chat.completions.create({ model: "lab", messages: say(text), stream: true });
    assert.equal(textOf(await gather(streamed)), `small-1 heard: ${text}`);
  });

  test("headers and the request's id", async () => {
    const { data, response, request_id } = await free.chat.completions
      .create({ model: SANDBOX_MODELS[0], messages: say("x") })
      .withResponse();
    assert.equal(data.choices[0].message.content, "openai/gpt-oss-20b heard: x");
    assert.equal(response.headers.get("x-freeway-provider"), "groq");
    assert.equal(response.headers.get("x-freeway-model"), "openai/gpt-oss-20b");
    assert.match(request_id, /^req_/);
    assert.equal(response.headers.get("x-freeway-request-id"), request_id);
  });

  test("unknown fields arrive and come back", async () => {
    const body = { model: "lab", messages: say("x"), zebra: { deep: [1, null, { a: 9007199254740991 }] } };
    const answer = await lab.chat.completions.create(body);
    assert.deepEqual(answer.echo, { zebra: body.zebra });
  });

  test("an image", async () => {
    const url = "data:image/png;base64,iVBORw0KGgo=";
    const content = [{ type: "text", text: "look" }, { type: "image_url", image_url: { url } }];
    const answer = await lab.chat.completions.create({ model: "lab", messages: say(content) });
    assert.equal(answer.choices[0].message.content, "small-1 heard: look (and 1 image)");
  });

  test("two choices, with log probabilities", async () => {
    const answer = await lab.chat.completions.create({ model: "lab", messages: say("x"), n: 2, logprobs: true });
    const texts = answer.choices.map((choice) => choice.message.content);
    assert.deepEqual(texts, ["small-1 heard: x", "small-1 heard: x (choice 1)"]);
    for (const choice of answer.choices) {
      assert.equal(choice.logprobs.content.map((token) => token.token).join(""), choice.message.content);
    }
  });
});

describe("streams", () => {
  for (const model of SANDBOX_MODELS) {
    test(`${model} without usage`, async () => {
      const chunks = await gather(
        await free.chat.completions.create({ model, messages: say("a b c d"), stream: true }),
      );
      assert.equal(textOf(chunks), `${model.slice(model.indexOf("/") + 1)} heard: a b c d`);
      const finishes = chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean);
      assert.deepEqual(finishes, ["stop"]);
      // A client that did not ask for usage reads `chunk.choices[0].delta` without looking.
      assert.deepEqual(chunks.filter((chunk) => chunk.choices.length === 0), []);
    });

    test(`${model} with usage`, async () => {
      const chunks = await gather(
        await free.chat.completions.create({
          model,
          messages: say("a b c d"),
          stream: true,
          stream_options: { include_usage: true },
        }),
      );
      assert.match(textOf(chunks), / heard: a b c d$/);
      assert.deepEqual(chunks.filter((chunk) => chunk.usage), chunks.slice(-1));
      const { prompt_tokens, completion_tokens, total_tokens } = chunks.at(-1).usage;
      assert.ok(completion_tokens > 0);
      assert.equal(total_tokens, prompt_tokens + completion_tokens);
    });
  }

  test("the stream helper", async () => {
    const stream = lab.chat.completions.stream({
      model: "lab",
      messages: say("help me"),
      stream_options: { include_usage: true },
    });
    let heard = "";
    stream.on("content", (delta) => (heard += delta));
    const final = await stream.finalChatCompletion();
    assert.equal(heard, "small-1 heard: help me");
    assert.equal(final.choices[0].message.content, heard);
    assert.ok(final.usage.total_tokens > 0);
  });
});

describe("tools", () => {
  for (const model of ["groq/openai/gpt-oss-20b", "mistral/devstral-2512", "smart"]) {
    test(`a call and its result with ${model}`, async () => {
      const messages = say("Paris");
      const first = await free.chat.completions.create({ model, messages, tools: [WEATHER] });
      assert.equal(first.choices[0].finish_reason, "tool_calls");
      const [call] = first.choices[0].message.tool_calls;
      assert.equal(call.function.name, "weather");
      assert.equal(JSON.parse(call.function.arguments).city, "Paris");
      messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "rain" });
      const second = await free.chat.completions.create({ model, messages, tools: [WEATHER] });
      assert.equal(second.choices[0].message.content, `${second.model} heard: Paris`);
    });
  }

  test("a streamed call", async () => {
    let args = "";
    let finish;
    const stream = await lab.chat.completions.create({
      model: "lab",
      messages: say('say "Zürich"'),
      tools: [WEATHER],
      stream: true,
    });
    for await (const chunk of stream) {
      args += chunk.choices[0].delta.tool_calls?.[0].function.arguments ?? "";
      finish = chunk.choices[0].finish_reason ?? finish;
    }
    assert.equal(finish, "tool_calls");
    assert.deepEqual(JSON.parse(args), { city: 'say "Zürich"', days: 1 });
  });

  test("the helper that runs tools", async () => {
    const asked = [];
    const runner = lab.chat.completions.runTools({
      model: "lab",
      messages: say("Oslo"),
      tools: [
        {
          type: "function",
          function: {
            ...WEATHER.function,
            parse: JSON.parse,
            function: (args) => {
              asked.push(args);
              return "snow";
            },
          },
        },
      ],
    });
    assert.equal(await runner.finalContent(), "small-1 heard: Oslo");
    assert.deepEqual(asked, [{ city: "Oslo", days: 1 }]);
  });
});

describe("JSON", () => {
  test("an object", async () => {
    const response_format = { type: "json_object" };
    const answer = await free.chat.completions.create({ model: "smart", messages: say("JSON"), response_format });
    assert.equal(JSON.parse(answer.choices[0].message.content).said, "JSON");
  });

  test("a schema, parsed", async () => {
    const schema = WEATHER.function.parameters;
    const answer = await free.chat.completions.parse({
      model: "auto",
      messages: say("Bath"),
      response_format: { type: "json_schema", json_schema: { name: "weather", schema, strict: true } },
    });
    const value = JSON.parse(answer.choices[0].message.content);
    assert.equal(value.city, "Bath");
    assert.equal(typeof value.days, "number");
  });
});

describe("models", () => {
  test("the list", async () => {
    const ids = (await gather(free.models.list())).map((model) => model.id);
    for (const id of ["auto", "smart", ...SANDBOX_MODELS]) assert.ok(ids.includes(id), id);
    assert.equal(new Set(ids).size, ids.length);
  });

  for (const id of ["smart", SANDBOX_MODELS[2]]) {
    test(`only ${id}`, async () => {
      assert.equal((await free.models.retrieve(id)).id, id);
    });
  }
});

describe("errors", () => {
  test("401", async () => {
    const gateway = await serve({ "lab-a": { upstream: labUpstream } }, { keys: ["sk-test-operator"] });
    const ask = (apiKey) =>
      connect(gateway, { apiKey }).chat.completions.create({ model: "small-1", messages: say("let me in") });
    await assert.rejects(ask("sk-test-wrong"), (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.status, 401);
      assert.equal(error.code, "invalid_api_key");
      assert.match(error.requestID, /^req_/);
      return true;
    });
    assert.ok(!(await log(labUpstream)).some((entry) => entry.body.includes("let me in")));
    assert.equal((await ask("sk-test-operator")).choices[0].message.content, "small-1 heard: let me in");
  });

  test("404", async () => {
    for (const stream of [false, true]) {
      await assert.rejects(
        lab.chat.completions.create({ model: "no-such-model", messages: say("x"), stream }),
        (error) => {
          assert.ok(error instanceof OpenAI.NotFoundError);
          assert.equal(error.code, "model_not_found");
          assert.equal(error.param, "model");
          assert.match(error.message, /no-such-model/);
          return true;
        },
      );
    }
  });

  test("400: a cap that is no number of tokens", async () => {
    await assert.rejects(
      lab.chat.completions.create({ model: "lab", messages: say("x"), max_tokens: -3 }),
      (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        assert.equal(error.param, "max_tokens");
        assert.equal(error.type, "invalid_request_error");
        return true;
      },
    );
  });

  test("400: a model that several accounts have", async () => {
    await assert.rejects(lab.chat.completions.create({ model: "small-1", messages: say("x") }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.match(error.message, /lab-a\/small-1/);
      assert.match(error.message, /lab-b\/small-1/);
      return true;
    });
  });

  test("429", async () => {
    const limits = ['{ metric = "requests", window = "day", amount = 2, reset = "rolling" }'];
    const gateway = await serve({ tiny: { upstream: labUpstream, limits } });
    // The SDK would wait and try again by itself if it were told to; a day is not worth its while.
    let sent = 0;
    const counting = (...words) => {
      sent += 1;
      return fetch(...words);
    };
    const client = connect(gateway, { maxRetries: 2, fetch: counting });
    for (const text of ["first within", "second within"]) {
      const answer = await client.chat.completions.create({ model: "tiny/small-1", messages: say(text) });
      assert.equal(answer.choices[0].message.content, `small-1 heard: ${text}`);
    }
    await assert.rejects(
      client.chat.completions.create({ model: "tiny/small-1", messages: say("one beyond") }),
      (error) => {
        assert.ok(error instanceof OpenAI.RateLimitError);
        assert.equal(error.code, "quota_exhausted");
        assert.match(error.message, /tiny\/small-1/);
        const wait = Number(error.headers.get("retry-after"));
        assert.ok(86_000 < wait && wait <= 86_410, `${wait}`);
        return true;
      },
    );
    assert.equal(sent, 3);
    assert.ok(!(await log(labUpstream)).some((entry) => entry.body.includes("one beyond")));
  });
});

test("50 at once", async () => {
  const client = connect(await sandbox());
  const ask = async (number) => {
    const text = `message number ${number} of its own`;
    if (number % 2 === 1) {
      const answer = await client.chat.completions.create({ model: "auto", messages: say(text) });
      assert.equal(answer.choices[0].message.content, `${answer.model} heard: ${text}`);
    } else {
      const stream = await client.chat.completions.create({ model: "auto", messages: say(text), stream: true });
      const chunks = await gather(stream);
      assert.equal(textOf(chunks), `${chunks[0].model} heard: ${text}`);
    }
  };
  await Promise.all(Array.from({ length: 50 }, (_, number) => ask(number)));
});

describe("failures upstream", () => {
  const pair = async () => {
    const [first, second] = [await upstream(), await upstream()];
    const aliases = { pair: ["lab-a/small-1", "lab-b/small-1"] };
    const gateway = await serve({ "lab-a": { upstream: first }, "lab-b": { upstream: second } }, { aliases });
    return { client: connect(gateway), first };
  };

  test("none is seen amid traffic", async () => {
    const { client, first } = await pair();
    const ask = async (number) => {
      const text = `number ${number} here`;
      const stream = await client.chat.completions.create({ model: "pair", messages: say(text), stream: true });
      assert.equal(textOf(await gather(stream)), `small-1 heard: ${text}`);
    };
    for (const fault of [null, { fault: "reset" }, { fault: "status", status: 500 }, { fault: "refuse" }]) {
      if (fault) await setFaults(first, { ...fault, times: 0 });
      await Promise.all(Array.from({ length: 10 }, (_, number) => ask(number)));
    }
  });

  test("a broken stream is an error and not an end", async () => {
    const { client, first } = await pair();
    await setFaults(first, { fault: "cut", after_events: 3, times: 0 });
    const got = [];
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create({ model: "pair", messages: say("a b c"), stream: true });
      for await (const chunk of stream) got.push(chunk);
    }, OpenAI.APIError);
    assert.ok(textOf(got).length > 0);
    assert.ok("small-1 heard: a b c".startsWith(textOf(got)));
    assert.ok(got.every((chunk) => !chunk.choices[0]?.finish_reason));
  });
});
