"""langchain-openai: conversations, tools, each way to structured output, Responses, embeddings."""

from cases import *
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

chat = ChatOpenAI(model=MODEL, base_url=V1, api_key="none", max_tokens=300, max_retries=0)
weather = tool(get_weather)


class City(BaseModel):
    """A city."""

    city: str
    celsius: int


@case
def an_answer_is_the_same_whole_and_streamed():
    assert chat.invoke(ASK_HELLO).content == HELLO
    assert "".join(chunk.content for chunk in chat.stream(ASK_HELLO)) == HELLO
    with_usage = ChatOpenAI(model=MODEL, base_url=V1, api_key="none", stream_usage=True)
    total = None
    for chunk in with_usage.stream(ASK_HELLO):
        total = chunk if total is None else total + chunk
    assert total.usage_metadata["output_tokens"] > 0, total


@case
def a_second_turn_echoes_the_answers_object():
    history = [SystemMessage("Be brief."), HumanMessage(ASK_HELLO)]
    first = chat.invoke(history)
    assert isinstance(first, AIMessage) and chat.invoke([*history, first, HumanMessage(ASK_MORE)]).content == MORE


@case
def a_tool_is_called_and_its_result_answered():
    bound = chat.bind_tools([weather])
    history = [HumanMessage(ASK_WEATHER)]
    first = bound.invoke(history)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), first
    history += [first, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    final = bound.invoke(history)
    assert final.content == REPORT, final
    assert bound.invoke([*history, final, HumanMessage(ASK_MORE)]).content == MORE


@case
def streamed_calls_are_put_together():
    total = None
    for chunk in chat.bind_tools([weather]).stream(ASK_BOTH):
        total = chunk if total is None else total + chunk
    assert [call["args"]["city"] for call in total.tool_calls] == ["Paris", "Rome"], total
    assert not total.invalid_tool_calls, total


@case
def every_way_to_structured_output_gives_the_object():
    for method in ("json_schema", "function_calling", "json_mode"):
        assert isinstance(chat.with_structured_output(City, method=method).invoke(ASK_JSON), City), method
    strict = chat.with_structured_output(City, method="function_calling", strict=True)
    assert isinstance(strict.invoke(ASK_JSON), City)


@case
def responses_answer_and_call():
    responses = ChatOpenAI(model=MODEL, base_url=V1, api_key="none", use_responses_api=True, max_retries=0)
    first = responses.invoke(ASK_HELLO)
    assert first.text == HELLO, first
    assert responses.invoke([HumanMessage(ASK_HELLO), first, HumanMessage(ASK_MORE)]).text == MORE
    assert responses.bind_tools([weather]).invoke(ASK_WEATHER).tool_calls[0]["args"] == {"city": "Paris"}


@case
def completions_continue_texts():
    text = OpenAI(model=MODEL, base_url=V1, api_key="none", max_tokens=50, max_retries=0)
    assert text.invoke("<|answer:hello|>") == HELLO
    assert "".join(text.stream("<|answer:hello|>")) == HELLO


@case
def embeddings_come():
    # The package's own division of long texts needs OpenAI's tokenizer.
    embed = OpenAIEmbeddings(model=EMBEDDER, base_url=V1, api_key="none", check_embedding_ctx_length=False)
    assert len(embed.embed_documents(["a cat", "a dog"])) == 2


@case
async def many_at_once_are_answered():
    answers = await asyncio.gather(*(chat.ainvoke(ASK_HELLO) for _ in range(8)))
    assert {answer.content for answer in answers} == {HELLO}


main()
