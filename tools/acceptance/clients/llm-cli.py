"""`llm` on the command line: prompts, streams, conversations, schemas, tools."""

import json
import subprocess
import sys

from cases import *

HOME = Path.cwd() / "llm"
HOME.mkdir(exist_ok=True)
ENVIRONMENT = {**os.environ, "LLM_USER_PATH": str(HOME), "OPENAI_API_KEY": "none"}
MODELS = f"""
- model_id: scripted
  model_name: {MODEL}
  api_base: {V1}
  supports_schema: true
  supports_tools: true
- model_id: continued
  model_name: {MODEL}
  api_base: {V1}
  completion: true
"""
(HOME / "extra-openai-models.yaml").write_text(MODELS)
(HOME / "weather.py").write_text('def get_weather(city: str) -> str:\n    """The weather in a city."""\n    return f"sunny in {city}"\n')


def llm(*args):
    """Standard output."""
    done = subprocess.run([sys.executable, "-m", "llm", *args], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@case
def a_prompt_is_answered_whole_and_streamed():
    assert llm("-m", "scripted", "--no-stream", ASK_HELLO) == HELLO
    assert llm("-m", "scripted", ASK_HELLO) == HELLO


@case
def a_conversation_goes_on():
    llm("-m", "scripted", "-s", "Be brief.", ASK_HELLO)
    assert llm("-c", ASK_MORE) == MORE


@case
def a_schema_is_followed():
    said = json.loads(llm("-m", "scripted", "--schema", json.dumps(CITY), ASK_JSON))
    assert set(said) == {"city", "celsius"}, said


@case
def a_tool_is_run_and_its_result_answered():
    functions = str(HOME / "weather.py")
    assert llm("-m", "scripted", "--functions", functions, ASK_WEATHER) == REPORT
    assert llm("-m", "scripted", "--no-stream", "--functions", functions, ASK_WEATHER) == REPORT


@case
def completions_continue_texts():
    assert llm("-m", "continued", "<|answer:hello|>") == HELLO


main()
