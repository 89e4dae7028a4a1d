"""What the clients' scripts share. A case is a function that raises where the server surprised its client; its name says what holds."""

import asyncio
import inspect
import json
import os
import time
import traceback
from pathlib import Path

URL = os.environ["ACCEPTANCE_URL"]
V1 = f"{URL}/v1"
# A model that says what model/ has; a real one, small; one for embeddings.
MODEL, BUNDLED, EMBEDDER = "scripted", "rustbook-5m-4bit", "embedder"
ANSWERS = json.loads((Path(__file__).parent / "model/answers.json").read_text())
HELLO, MORE, REPORT = ANSWERS["hello"], ANSWERS["more"], ANSWERS["report"]

ASK_HELLO = "Good day."
ASK_MORE = "Is there more?"
ASK_WEATHER = "What is the weather in Paris?"
ASK_BOTH = "What is the weather in Paris and Rome?"
ASK_JSON = "Give me a city as JSON."
ASK_THINK = "What do two and two make?"
THOUGHT, FOUR = "Two and two make four.", "Four."

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city.", "parameters": WEATHER}}

CASES = []


def case(function):
    CASES.append(function)
    return function


def user(text):
    return {"role": "user", "content": text}


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def main():
    """Runs all cases, each a line of JSON in the file that the runner reads."""
    with open(os.environ["ACCEPTANCE_RECORD"], "a") as record:
        for function in CASES:
            begin, fault = time.monotonic(), None
            try:
                result = function()
                if inspect.isawaitable(result):
                    asyncio.run(result)
            except Exception as error:
                traceback.print_exc()
                fault = f"{type(error).__name__}: {error}"
            seconds = round(time.monotonic() - begin, 2)
            record.write(json.dumps({"case": function.__name__.replace("_", " "), "fault": fault, "seconds": seconds}) + "\n")
            record.flush()
