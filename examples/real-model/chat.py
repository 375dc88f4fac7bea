"""Talks to Freeway with the OpenAI SDK, stops the first model server on the way, and goes on talking.

The SDK's own retries are off: where an answer comes in spite of a dead server, Freeway found it.
"""

import argparse
import os
import signal
import sys
import time

from openai import OpenAI

QUESTION = [{"role": "user", "content": "Name three colours."}]
PROVIDER = "x-freeway-provider"


def main() -> None:
    options = parse_options()
    client = OpenAI(base_url=options.base_url, api_key="sk-test-local", max_retries=0, timeout=60)
    providers = [chat(client, options.model), stream(client, options.model)]
    if options.stop_pid is None:
        return

    stop(options.stop_pid)
    after = [chat(client, options.model), stream(client, options.model)]
    if None not in providers + after and set(providers) & set(after):
        sys.exit(f"expected another provider after the stop, got {providers} and then {after}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--model", default="local")
    parser.add_argument("--stop-pid", type=int, help="process to end between the first and the second half")
    return parser.parse_args()


def chat(client: OpenAI, model: str) -> str | None:
    """Prints one whole answer and returns who gave it."""
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=40, temperature=0
    )
    completion = response.parse()
    text = completion.choices[0].message.content
    report("chat", response.headers, text, completion.usage)
    return response.headers.get(PROVIDER)


def stream(client: OpenAI, model: str) -> str | None:
    """Prints one answer that came in pieces and returns who gave it."""
    response = client.chat.completions.with_raw_response.create(
        model=model,
        messages=QUESTION,
        max_tokens=40,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces, usage, finish_reason = [], None, None
    for chunk in response.parse():
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish_reason = choice.finish_reason or finish_reason
    if finish_reason is None or usage is None:
        sys.exit(f"the stream broke off: finish_reason {finish_reason}, usage {usage}")
    report(f"stream, {len(pieces)} pieces", response.headers, "".join(pieces), usage)
    return response.headers.get(PROVIDER)


def report(what: str, headers, text: str | None, usage) -> None:
    if not text:
        sys.exit(f"{what}: the answer is empty")
    print(f"{what}: {text!r}")
    print(f"  {usage.prompt_tokens} tokens in, {usage.completion_tokens} out; {PROVIDER}: {headers.get(PROVIDER)}")


def stop(pid: int) -> None:
    """Ends the process and waits until it is gone."""
    print(f"stopping process {pid}")
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    sys.exit(f"process {pid} is still there after ten seconds")


if __name__ == "__main__":
    main()
