"""Small chat templates and conversations, rendered by transformers: crates/text/tests/goldens/templates.json."""

import json
import pathlib

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from template_families import CONVERSATIONS, FAMILIES
from template_snippets import DIFFERENT, SNIPPETS

OUT = pathlib.Path(__file__).parents[2] / "crates/text/tests/goldens/templates.json"

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Hi  there\n"},
    {"role": "assistant", "content": "A<think>x</think>\n\nB"},
    {"role": "user", "content": '日本 "q" <b> & é'},
]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer", "default": 1.0}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "d'é", "parameters": PARAMETERS, "strict": True, "x": None}
TOOLS = [{"type": "function", "function": FUNCTION}]
VARIABLES = {
    "enable_thinking": False,
    "n": 3,
    "f": 0.5,
    "nothing": None,
    "lst": ["a", 1, None, True, 2.0],
    "mp": {"b": 1, "a": [1, "x"]},
    "s": "a,b,,c",
    "big": 12345678901234567890,
    "huge": 1e16,
}


def rendered(template, messages, tools, variables):
    """What transformers makes of it: `text`, or the words of `raise_exception`, or null for any other failure."""
    # Templates may change what they are given.
    messages, tools, variables = json.loads(json.dumps([messages, tools, variables]))
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        texts, _ = render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=True, **tokens, **variables
        )
        return {"text": texts[0]}
    except jinja2.exceptions.TemplateError as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"refused": error.message if raised else None}
    except Exception:
        return {"refused": None}


def main():
    snippets = [
        {"template": s, "different": s in DIFFERENT, **rendered(s, MESSAGES, TOOLS, VARIABLES)}
        for s in SNIPPETS + DIFFERENT
    ]
    families = []
    for name, template in FAMILIES.items():
        cases = [
            {"conversation": i, **rendered(template, c["messages"], c.get("tools"), c.get("variables", {}))}
            for i, c in enumerate(CONVERSATIONS)
        ]
        families.append({"name": name, "template": template, "cases": cases})
    golden = {
        "messages": MESSAGES,
        "tools": TOOLS,
        "variables": VARIABLES,
        "snippets": snippets,
        "conversations": CONVERSATIONS,
        "families": families,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
