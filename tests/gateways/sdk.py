"""One request by a vendor's own client with its default settings; what came of it as a line of JSON.

Run by the Python that has the clients: sdk.py CLIENT URL KEY [stream]
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def anthropic_text(url: str, key: str, stream: bool) -> str:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=key)
    asked: dict[str, Any] = {
        "model": "claude-sonnet", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi."}],
    }  # fmt: skip
    if stream:
        with client.messages.stream(**asked) as events:
            return "".join(events.text_stream)
    return str(client.messages.create(**asked).content[0].text)


def openai_text(url: str, key: str, stream: bool) -> str:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    asked: dict[str, Any] = {"model": "gpt-large", "messages": [{"role": "user", "content": "Hi."}]}
    if stream:
        events = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        return "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    return str(client.chat.completions.create(**asked).choices[0].message.content)


def main() -> None:
    client, url, key, *rest = sys.argv[1:]
    begun = time.monotonic()
    try:
        told: dict[str, Any] = {
            "text": (anthropic_text if client == "anthropic" else openai_text)(url, key, rest == ["stream"])
        }
    except Exception as error:
        response = getattr(error, "response", None)
        told = {
            "error": type(error).__name__, "message": getattr(error, "message", str(error)),
            "status": getattr(response, "status_code", 0), "body": getattr(error, "body", None),
            "headers": dict(getattr(response, "headers", {})),
        }  # fmt: skip
    print(json.dumps(told | {"seconds": round(time.monotonic() - begun, 3)}))


if __name__ == "__main__":
    main()
