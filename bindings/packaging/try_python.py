"""What an installed wheel must do: be imported, leave a free-threaded interpreter so, and answer with its own bundled model."""

import sys
import sysconfig

import krserve_native
import mlx_serving

if sysconfig.get_config_var("Py_GIL_DISABLED") and sys._is_gil_enabled():
    raise SystemExit("the import has switched the GIL on again")
print("imported", mlx_serving.__version__, "in Python", sys.version.split()[0], "from", krserve_native.__path__[0])

with mlx_serving.Engine() as engine:
    model = engine.load_model()
    answer = engine.chat([{"role": "user", "content": "What Is Ownership?"}], max_tokens=8, temperature=0)
print(model["id"], "on", model["device"], "answers", repr(answer.text))
if answer.usage.completion_tokens != 8:
    raise SystemExit(f"that are {answer.usage.completion_tokens} tokens instead of 8")
