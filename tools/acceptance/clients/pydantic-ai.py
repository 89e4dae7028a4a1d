"""pydantic-ai: agents with tools and typed output, by chat completions, Responses and Anthropic's messages."""

from anthropic import AsyncAnthropic
from cases import *
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """A city."""

    city: str
    celsius: int


def models():
    """New ones for each case, because each has an event loop of its own."""
    provider = OpenAIProvider(base_url=V1, api_key="none")
    client = AsyncAnthropic(base_url=URL, api_key="none", max_retries=0)
    return {
        "chat": OpenAIChatModel(MODEL, provider=provider),
        "responses": OpenAIResponsesModel(MODEL, provider=provider),
        "anthropic": AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client)),
    }


SETTINGS = {"max_tokens": 300}


def each_model(check):
    """The case for each of the models."""
    for kind in ("chat", "responses", "anthropic"):

        async def run(kind=kind):
            await check(models()[kind])

        run.__name__ = f"{kind}: {check.__name__}"
        case(run)


@each_model
async def a_second_turn_has_the_first_ones_messages(model):
    agent = Agent(model, model_settings=SETTINGS)
    first = await agent.run(ASK_HELLO)
    assert first.output == HELLO, first
    second = await agent.run(ASK_MORE, message_history=first.all_messages())
    assert second.output == MORE, second


@each_model
async def a_tool_is_run_and_its_result_answered(model):
    agent = Agent(model, instructions="Be brief.", model_settings=SETTINGS)
    agent.tool_plain(get_weather)
    first = await agent.run(ASK_WEATHER)
    assert first.output == REPORT, first
    second = await agent.run(ASK_MORE, message_history=first.all_messages())
    assert second.output == MORE, second


@each_model
async def a_stream_has_the_whole_answer(model):
    async with Agent(model, model_settings=SETTINGS).run_stream(ASK_HELLO) as stream:
        assert await stream.get_output() == HELLO


@each_model
async def a_tool_gives_typed_output(model):
    result = await Agent(model, output_type=ToolOutput(City), model_settings=SETTINGS).run(ASK_JSON)
    assert isinstance(result.output, City), result


@case
async def a_schema_and_a_prompt_give_typed_output():
    for output in (NativeOutput(City), PromptedOutput(City)):
        result = await Agent(models()["chat"], output_type=output, model_settings=SETTINGS).run(ASK_JSON)
        assert isinstance(result.output, City), result


main()
