"""Anthropic's client in Python: messages, tools, counts of tokens, streams."""

import json

import anthropic
from cases import *

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=60)
TOOLS = [{"name": "get_weather", "description": "The weather in a city.", "input_schema": WEATHER}]


def ask(messages, **more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 200, "messages": messages, **more})


def text(message):
    return "".join(block.text for block in message.content if block.type == "text")


@case
def a_message_is_answered():
    answer = ask([user(ASK_HELLO)], system="Be brief.")
    assert text(answer) == HELLO and answer.stop_reason == "end_turn" and answer.role == "assistant", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage


@case
def a_second_turn_echoes_the_answers_content():
    first = ask([user(ASK_HELLO)])
    for content in (first.content, [block.model_dump() for block in first.content], [block.to_dict() for block in first.content]):
        answer = ask([user(ASK_HELLO), {"role": "assistant", "content": content}, user(ASK_MORE)])
        assert text(answer) == MORE, answer


@case
def a_stream_has_the_whole_answer():
    with client.messages.stream(model=MODEL, max_tokens=200, messages=[user(ASK_HELLO)]) as stream:
        assert "".join(stream.text_stream) == HELLO
        final = stream.get_final_message()
    assert text(final) == HELLO and final.stop_reason == "end_turn" and final.usage.output_tokens > 0, final
    raw = list(client.messages.create(model=MODEL, max_tokens=200, messages=[user(ASK_HELLO)], stream=True))
    assert raw[0].type == "message_start" and raw[-1].type == "message_stop", [event.type for event in raw]


@case
def a_tool_is_used_and_its_result_answered():
    messages = [user(ASK_WEATHER)]
    answer = ask(messages, tools=TOOLS)
    assert answer.stop_reason == "tool_use", answer
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert use.name == "get_weather" and use.input == {"city": "Paris"}, use
    result = {"type": "tool_result", "tool_use_id": use.id, "content": get_weather("Paris")}
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    final = ask(messages, tools=TOOLS)
    assert text(final) == REPORT, final
    messages += [{"role": "assistant", "content": final.content}, user(ASK_MORE)]
    assert text(ask(messages, tools=TOOLS)) == MORE


@case
def a_streamed_use_is_the_whole_one():
    with client.messages.stream(model=MODEL, max_tokens=300, messages=[user(ASK_BOTH)], tools=TOOLS) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"], final
    assert [block.input for block in final.content[1:]] == [{"city": "Paris"}, {"city": "Rome"}], final


@case
def tool_choice_forces_and_forbids_uses():
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        answer = ask([user(ASK_HELLO)], tools=TOOLS, tool_choice=choice)
        assert any(block.type == "tool_use" for block in answer.content), answer
    answer = ask([user(ASK_WEATHER)], tools=TOOLS, tool_choice={"type": "none"})
    assert not any(block.type == "tool_use" for block in answer.content), answer


@case
def thinking_is_a_block_of_its_own_and_is_taken_back():
    first = ask([user(ASK_THINK)], max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in first.content] == ["thinking", "text"], first
    assert first.content[0].thinking.strip() == THOUGHT and text(first).strip() == FOUR, first
    assert text(ask([user(ASK_THINK), {"role": "assistant", "content": first.content}, user(ASK_MORE)])) == MORE


@case
def tokens_are_counted_as_they_are_charged():
    for more in ({}, {"tools": TOOLS}, {"system": [{"type": "text", "text": "Be brief."}]}):
        count = client.messages.count_tokens(model=MODEL, messages=[user(ASK_HELLO)], **more)
        usage = ask([user(ASK_HELLO)], **more).usage
        assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, (more, count, usage)


@case
def stop_sequences_and_limits_end_answers():
    answer = ask([user(ASK_HELLO)], stop_sequences=["what"])
    assert answer.stop_reason == "stop_sequence" and answer.stop_sequence == "what" and text(answer) == HELLO.split("what")[0], answer
    assert ask([user(ASK_HELLO)], max_tokens=2).stop_reason == "max_tokens"


@case
def errors_are_the_packages_own():
    for wrong, kind in [
        ({"model": "no-such-model"}, anthropic.NotFoundError),
        ({"extra_body": {"temperature": -1}}, anthropic.BadRequestError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]}, anthropic.BadRequestError),
    ]:
        try:
            ask(**{"messages": [user(ASK_HELLO)], **wrong})
        except kind as error:
            assert error.body["type"] == "error" and error.body["error"]["type"], error.body
        else:
            raise AssertionError(f"{wrong} was accepted")


main()
