"""The official client in Python: every turn of a conversation with tools, structured outputs, Responses, embeddings."""

import base64
import json
import math
import struct

import openai
from cases import *
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=V1, api_key="none", max_retries=0, timeout=60)


class City(BaseModel):
    city: str
    celsius: int


def chat(messages, **more):
    return client.chat.completions.create(model=MODEL, messages=messages, **more)


def streamed(messages, **more):
    """An answer put together from chunks: text, reasoning, calls, reason."""
    text, reasoning, calls, reason = "", "", {}, None
    for chunk in chat(messages, stream=True, **more):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or []:
                if call.index not in calls:
                    assert call.id and call.type == "function" and call.function.name, call
                    calls[call.index] = {"id": call.id, "name": call.function.name, "arguments": ""}
                calls[call.index]["arguments"] += call.function.arguments or ""
            assert reason is None or choice.finish_reason is None, "one reason, the last"
            reason = choice.finish_reason or reason
    return text, reasoning, [calls[i] for i in sorted(calls)], reason


@case
def models_are_listed_and_found():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


@case
def an_answer_is_the_same_whole_and_streamed():
    answer = chat([user(ASK_HELLO)])
    assert answer.choices[0].message.content == HELLO and answer.choices[0].finish_reason == "stop", answer
    assert streamed([user(ASK_HELLO)]) == (HELLO, "", [], "stop")


@case
def a_second_turn_echoes_the_answers_object_in_every_form():
    first = chat([user(ASK_HELLO)]).choices[0].message
    for message in (first, first.model_dump(), first.to_dict(), json.loads(first.model_dump_json())):
        assert chat([user(ASK_HELLO), message, user(ASK_MORE)]).choices[0].message.content == MORE


@case
def a_tool_is_called_and_its_result_answered():
    messages = [user(ASK_WEATHER)]
    answer = chat(messages, tools=[TOOL]).choices[0]
    assert answer.finish_reason == "tool_calls", answer
    (call,) = answer.message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}, call
    assert not answer.message.content, answer.message
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": get_weather("Paris")}]
    final = chat(messages, tools=[TOOL]).choices[0]
    assert final.message.content == REPORT and final.finish_reason == "stop", final
    messages += [final.message, user(ASK_MORE)]
    assert chat(messages, tools=[TOOL]).choices[0].message.content == MORE


@case
def a_streamed_call_is_the_whole_one():
    whole = chat([user(ASK_BOTH)], tools=[TOOL]).choices[0]
    text, _, calls, reason = streamed([user(ASK_BOTH)], tools=[TOOL])
    assert reason == whole.finish_reason == "tool_calls"
    assert (whole.message.content or "") == text and "<tool_call>" not in text and "Two cities." in text, text
    assert [json.loads(call["arguments"]) for call in calls] == [{"city": "Paris"}, {"city": "Rome"}], calls
    assert [(call["name"], call["arguments"]) for call in calls] == [
        (call.function.name, call.function.arguments) for call in whole.message.tool_calls
    ]
    assert len({call["id"] for call in calls}) == 2, calls


@case
def tool_choice_forces_and_forbids_calls():
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        answer = chat([user(ASK_HELLO)], tools=[TOOL], tool_choice=choice, max_tokens=200).choices[0]
        (call,) = answer.message.tool_calls
        assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments), answer
    answer = chat([user(ASK_WEATHER)], tools=[TOOL], tool_choice="none").choices[0]
    assert not answer.message.tool_calls, answer


@case
def strict_tools_are_taken_by_the_stream_helper():
    strict = openai.pydantic_function_tool(City)
    with client.chat.completions.stream(model=MODEL, messages=[user(ASK_HELLO)], tools=[strict], tool_choice="required", max_tokens=200) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.tool_calls[0].function.parsed_arguments, City), final


@case
def parse_gives_objects_of_the_schema():
    answer = client.chat.completions.parse(model=MODEL, messages=[user(ASK_JSON)], response_format=City, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, City), answer
    # A prompt to which the model would say something else.
    answer = client.chat.completions.parse(model=MODEL, messages=[user(ASK_HELLO)], response_format=City, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, City), answer


@case
def a_parsed_answer_is_sent_back():
    first = client.chat.completions.parse(model=MODEL, messages=[user(ASK_JSON)], response_format=City, max_tokens=200)
    answer = chat([user(ASK_JSON), first.choices[0].message, user(ASK_MORE)])
    assert answer.choices[0].message.content == MORE


@case
def json_object_gives_an_object():
    answer = chat([user(ASK_JSON)], response_format={"type": "json_object"}, max_tokens=200)
    assert isinstance(json.loads(answer.choices[0].message.content), dict), answer


@case
def reasoning_is_apart_whole_and_streamed():
    answer = chat([user(ASK_THINK)]).choices[0].message
    assert answer.content.strip() == FOUR and answer.reasoning_content.strip() == THOUGHT, answer
    text, reasoning, _, _ = streamed([user(ASK_THINK)])
    assert (text, reasoning) == (answer.content, answer.reasoning_content)
    again = chat([user(ASK_THINK), answer, user(ASK_MORE)]).choices[0].message
    assert again.content == MORE


@case
def reasoning_effort_reaches_the_template():
    answer = chat([user(ASK_THINK)], reasoning_effort="none").choices[0].message
    assert answer.content == HELLO, answer


@case
def log_probabilities_come_with_every_token():
    answer = chat([user(ASK_HELLO)], logprobs=True, top_logprobs=2).choices[0]
    assert "".join(token.token for token in answer.logprobs.content[:-1]) == HELLO, answer.logprobs
    assert all(token.logprob > -1e-3 for token in answer.logprobs.content), answer.logprobs


@case
def completions_continue_texts():
    answer = client.completions.create(model=MODEL, prompt="<|answer:hello|>", max_tokens=50)
    assert answer.choices[0].text == HELLO, answer
    chunks = client.completions.create(model=MODEL, prompt="<|answer:hello|>", max_tokens=50, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == HELLO


@case
def responses_answer():
    answer = client.responses.create(model=MODEL, input=ASK_HELLO, instructions="Be brief.")
    assert answer.status == "completed" and answer.output_text == HELLO, answer
    assert answer.usage.output_tokens > 0, answer.usage


@case
def responses_stream_every_event_in_order():
    events = list(client.responses.create(model=MODEL, input=ASK_HELLO, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == HELLO
    assert events[0].type == "response.created" and events[-1].type == "response.completed", events
    with client.responses.stream(model=MODEL, input=ASK_HELLO) as stream:
        assert stream.get_final_response().output_text == HELLO


@case
def responses_call_tools_and_take_their_items_back():
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER}
    items = [user(ASK_WEATHER)]
    answer = client.responses.create(model=MODEL, input=items, tools=[tool])
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Paris"}, call
    items += answer.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": get_weather("Paris")})
    final = client.responses.create(model=MODEL, input=items, tools=[tool])
    assert final.output_text == REPORT, final
    items += [*final.output, user(ASK_MORE)]
    assert client.responses.create(model=MODEL, input=items, tools=[tool]).output_text == MORE


@case
def responses_hold_strict_tools_to_their_schema():
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    answer = client.responses.create(model=MODEL, input=ASK_HELLO, tools=[tool], tool_choice="required", max_output_tokens=200)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert isinstance(json.loads(call.arguments)["city"], str), call


@case
def responses_parse_objects_of_a_schema():
    answer = client.responses.parse(model=MODEL, input=ASK_JSON, text_format=City, max_output_tokens=200)
    assert isinstance(answer.output_parsed, City), answer


@case
def responses_keep_reasoning_apart():
    answer = client.responses.create(model=MODEL, input=ASK_THINK)
    assert [item.type for item in answer.output] == ["reasoning", "message"], answer
    assert answer.output_text.strip() == FOUR, answer
    again = client.responses.create(model=MODEL, input=[user(ASK_THINK), *answer.output, user(ASK_MORE)])
    assert again.output_text == MORE, again


@case
def embeddings_are_of_length_one_and_the_same_in_base64():
    texts = ["a cat", "a dog"]
    floats = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float").data
    packed = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="base64").data
    for one, other in zip(floats, packed, strict=True):
        assert abs(math.hypot(*one.embedding) - 1) < 1e-3
        raw = base64.b64decode(other.embedding) if isinstance(other.embedding, str) else struct.pack(f"<{len(other.embedding)}f", *other.embedding)
        assert raw == struct.pack(f"<{len(one.embedding)}f", *one.embedding)
    # The package asks for base64 itself and decodes it.
    own = client.embeddings.create(model=EMBEDDER, input=texts[0]).data[0].embedding
    assert struct.pack(f"<{len(own)}f", *own) == struct.pack(f"<{len(own)}f", *floats[0].embedding)


@case
def errors_are_the_packages_own():
    for wrong, kind in [
        ({"model": "no-such-model"}, openai.NotFoundError),
        ({"temperature": -1}, openai.BadRequestError),
        ({"extra_body": {"no_such_parameter": 1}}, openai.BadRequestError),
        ({"messages": [user("word " * 40000)]}, openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(**{"model": MODEL, "messages": [user(ASK_HELLO)], **wrong})
        except kind as error:
            assert "messages" not in wrong or error.code == "context_length_exceeded", error
        else:
            raise AssertionError(f"{wrong} was accepted")


@case
async def eight_at_once_are_answered_alike():
    many = AsyncOpenAI(base_url=V1, api_key="none", max_retries=0)
    ask = lambda: many.chat.completions.create(model=MODEL, messages=[user(ASK_WEATHER)], tools=[TOOL])
    answers = await asyncio.gather(*(ask() for _ in range(8)))
    assert {answer.choices[0].message.tool_calls[0].function.arguments for answer in answers} == {'{"city": "Paris"}'}, answers


main()
