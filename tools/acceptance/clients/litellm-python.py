"""litellm, as a proxy or an application calls it: by OpenAI's route, vLLM's, Responses and Anthropic's."""

import json

import litellm
from cases import *

litellm.suppress_debug_info = True
litellm.telemetry = False


def ask(messages, model=f"openai/{MODEL}", **more):
    return litellm.completion(model=model, api_base=V1, api_key="none", messages=messages, num_retries=0, **more)


@case
def an_answer_is_the_same_by_every_route():
    for route in ("openai", "hosted_vllm", "lm_studio"):
        assert ask([user(ASK_HELLO)], model=f"{route}/{MODEL}").choices[0].message.content == HELLO, route
    chunks = list(ask([user(ASK_HELLO)], stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == HELLO
    assert litellm.stream_chunk_builder(chunks).usage.completion_tokens > 0


@case
def a_second_turn_echoes_the_answers_object():
    first = ask([user(ASK_HELLO)]).choices[0].message
    for message in (first, first.model_dump()):
        assert ask([user(ASK_HELLO), message, user(ASK_MORE)]).choices[0].message.content == MORE


@case
def a_tool_is_called_and_its_result_answered():
    messages = [user(ASK_WEATHER)]
    answer = ask(messages, tools=[TOOL]).choices[0]
    assert answer.finish_reason == "tool_calls", answer
    (call,) = answer.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}, call
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": get_weather("Paris")}]
    assert ask(messages, tools=[TOOL]).choices[0].message.content == REPORT


@case
def streamed_calls_are_put_together():
    chunks = list(ask([user(ASK_BOTH)], tools=[TOOL], stream=True))
    calls = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"], calls


@case
def reasoning_is_apart():
    message = ask([user(ASK_THINK)], model=f"hosted_vllm/{MODEL}").choices[0].message
    assert message.reasoning_content.strip() == THOUGHT and message.content.strip() == FOUR, message


@case
def a_schema_is_followed():
    format = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    answer = ask([user(ASK_JSON)], model=f"hosted_vllm/{MODEL}", response_format=format, max_tokens=200)
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "celsius"}, answer


@case
def text_completions_continue_texts():
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", api_base=V1, api_key="none", prompt="<|answer:hello|>", max_tokens=50
    )
    assert answer.choices[0].text == HELLO, answer


@case
def responses_answer():
    answer = litellm.responses(model=f"openai/{MODEL}", api_base=V1, api_key="none", input=ASK_HELLO)
    (message,) = [item for item in answer.output if item.type == "message"]
    assert message.content[0].text == HELLO, answer


@case
def anthropics_messages_answer():
    answer = litellm.completion(
        model=f"anthropic/{MODEL}", api_base=URL, api_key="none", messages=[user(ASK_WEATHER)], tools=[TOOL], max_tokens=200
    )
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "Paris"}, answer


@case
def embeddings_come():
    answer = litellm.embedding(model=f"openai/{EMBEDDER}", api_base=V1, api_key="none", input=["a cat"])
    assert answer.data[0]["embedding"], answer


@case
def a_full_context_is_its_own_error():
    try:
        ask([user("word " * 40000)])
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("it was accepted")


@case
async def many_at_once_are_answered():
    asked = [litellm.acompletion(model=f"openai/{MODEL}", api_base=V1, api_key="none", messages=[user(ASK_HELLO)]) for _ in range(8)]
    assert {answer.choices[0].message.content for answer in await asyncio.gather(*asked)} == {HELLO}


main()
