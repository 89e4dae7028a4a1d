"""instructor: objects of a class in each of its modes."""

import instructor
from cases import *
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=V1, api_key="none", max_retries=0, timeout=60)


class City(BaseModel):
    """A city."""

    city: str
    celsius: int


def create(mode, messages, **more):
    patched = instructor.from_openai(client, mode=mode)
    return patched.chat.completions.create(model=MODEL, messages=messages, response_model=City, max_tokens=300, max_retries=0, **more)


def mode_gives_the_object(mode):
    def run():
        assert isinstance(create(mode, [user(ASK_JSON)]), City)

    run.__name__ = f"{mode.name}_gives_the_object"
    case(run)


for name in ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON"):
    if hasattr(instructor.Mode, name):
        mode_gives_the_object(getattr(instructor.Mode, name))


@case
def a_second_turn_echoes_the_answers_object():
    patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    settings = dict(model=MODEL, response_model=City, max_tokens=300, max_retries=0)
    _, completion = patched.chat.completions.create_with_completion(messages=[user(ASK_JSON)], **settings)
    # The package itself reads messages as dictionaries.
    messages = [user(ASK_JSON), completion.choices[0].message.model_dump(), user(ASK_JSON)]
    assert isinstance(patched.chat.completions.create(messages=messages, **settings), City)


@case
def partial_objects_are_streamed():
    patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    parts = patched.chat.completions.create_partial(
        model=MODEL, messages=[user(ASK_JSON)], response_model=City, max_tokens=300, max_retries=0
    )
    *_, last = parts
    assert City.model_validate(last.model_dump()), last


main()
