"""The OpenAI Agents SDK: tools, handoffs of history and typed output, by chat completions and by Responses."""

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from cases import *
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
weather = function_tool(get_weather)


class City(BaseModel):
    city: str
    celsius: int


def agent(kind, **more):
    client = AsyncOpenAI(base_url=V1, api_key="none", max_retries=0)
    return Agent(name="agent", model=kind(model=MODEL, openai_client=client), model_settings=ModelSettings(max_tokens=300), **more)


def each_model(check):
    """The case for each of the models."""
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):

        async def run(kind=kind):
            await check(kind)

        run.__name__ = f"{kind.__name__}: {check.__name__}"
        case(run)


@each_model
async def a_second_turn_has_the_first_ones_items(kind):
    first = await Runner.run(agent(kind), ASK_HELLO)
    assert first.final_output == HELLO, first
    second = await Runner.run(agent(kind), [*first.to_input_list(), user(ASK_MORE)])
    assert second.final_output == MORE, second


@each_model
async def a_tool_is_run_and_its_result_answered(kind):
    first = await Runner.run(agent(kind, tools=[weather]), ASK_WEATHER)
    assert first.final_output == REPORT, first
    second = await Runner.run(agent(kind, tools=[weather]), [*first.to_input_list(), user(ASK_MORE)])
    assert second.final_output == MORE, second


@each_model
async def a_streamed_run_is_the_whole_one(kind):
    run = Runner.run_streamed(agent(kind, tools=[weather]), ASK_WEATHER)
    async for _ in run.stream_events():
        pass
    assert run.final_output == REPORT, run


@each_model
async def typed_output_follows_its_schema(kind):
    result = await Runner.run(agent(kind, output_type=City), ASK_JSON)
    assert isinstance(result.final_output, City), result


main()
